"""A method's GraphQL document, checked when its definition is registered.

No schema of the upstream's is known here, so the rules are those that need none
(https://spec.graphql.org/September2025/#sec-Validation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    NonNullTypeNode,
    OperationDefinitionNode,
    OperationType,
    build_schema,
    parse,
    validate,
)
from graphql.validation import (
    ASTValidationRule,
    ExecutableDefinitionsRule,
    KnownFragmentNamesRule,
    NoFragmentCyclesRule,
    NoUndefinedVariablesRule,
    NoUnusedFragmentsRule,
    NoUnusedVariablesRule,
    UniqueArgumentNamesRule,
    UniqueFragmentNamesRule,
    UniqueInputFieldNamesRule,
    UniqueVariableNamesRule,
)

from integration_service.contracts.errors import ErrorCode, IntegrationError

MAX_CHARACTERS = 100_000
MAX_TOKENS = 10_000
MAX_NESTING = 50
"""How deep braces, brackets and parentheses may stand in one another."""
_MAX_REASON = 200
_RULES: tuple[type[ASTValidationRule], ...] = (
    ExecutableDefinitionsRule,
    UniqueFragmentNamesRule,
    KnownFragmentNamesRule,
    NoUnusedFragmentsRule,
    NoFragmentCyclesRule,
    UniqueVariableNamesRule,
    NoUndefinedVariablesRule,
    NoUnusedVariablesRule,
    UniqueArgumentNamesRule,
    UniqueInputFieldNamesRule,
)


@dataclass(frozen=True)
class GraphqlDocument:
    """One operation and its fragments. `variables` are all that it declares, `required` those that need a value."""

    text: str
    operation_name: str | None
    is_query: bool
    variables: frozenset[str]
    required: frozenset[str]

    @classmethod
    def read(cls, text: str, *, at: str) -> GraphqlDocument:
        """Raises IntegrationError VALIDATION_ERROR with the path `at` and, in the sentence, line and column."""
        document = _parsed(text, at)
        operation = _only_operation(document, at)
        try:
            errors = validate(_no_schema(), document, _RULES, max_errors=1)
        except RecursionError:  # fragments that spread one another in a long row
            raise _too_deep(at) from None
        if errors:
            raise _refused(errors[0], at)
        declared = operation.variable_definitions or ()
        return cls(
            text=text,
            operation_name=operation.name.value if operation.name else None,
            is_query=operation.operation is OperationType.QUERY,
            variables=frozenset(variable.variable.name.value for variable in declared),
            required=frozenset(
                variable.variable.name.value
                for variable in declared
                if isinstance(variable.type, NonNullTypeNode) and variable.default_value is None
            ),
        )


def _parsed(text: str, at: str) -> DocumentNode:
    if len(text) > MAX_CHARACTERS:
        raise _wrong(at, f"is longer than {MAX_CHARACTERS} characters")
    try:
        document = parse(text, max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        raise _refused(error, at) from None
    except RecursionError:
        raise _too_deep(at) from None
    _check_nesting(document, at)
    return document


def _check_nesting(document: DocumentNode, at: str) -> None:
    """What walks the document later recurses; the tokens tell the depth without recursion."""
    depth = 0
    token = document.loc.start_token if document.loc else None
    while token is not None:
        if token.kind.value in ("{", "[", "("):
            depth += 1
            if depth > MAX_NESTING:
                raise _too_deep(at, f"{token.line}:{token.column}: ")
        elif token.kind.value in ("}", "]", ")"):
            depth -= 1
        token = token.next


def _only_operation(document: DocumentNode, at: str) -> OperationDefinitionNode:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if len(operations) != 1:
        raise _wrong(at, f"holds {len(operations)} operations, and one is what a method runs")
    if operations[0].operation is OperationType.SUBSCRIPTION:
        raise _wrong(at, "is a subscription: a method has one answer")
    return operations[0]


@cache
def _no_schema() -> GraphQLSchema:
    """The rules want one to walk by; those used here do not look into it."""
    return build_schema("type Query { any: Int } type Mutation { any: Int }", assume_valid=True)


def _refused(error: GraphQLError, at: str) -> IntegrationError:
    places = error.locations or []
    where = f"{places[0].line}:{places[0].column}: " if places else ""
    return _wrong(at, where + error.message[:_MAX_REASON])


def _too_deep(at: str, where: str = "") -> IntegrationError:
    return _wrong(at, f"{where}nests deeper than {MAX_NESTING}")


def _wrong(at: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=at)
