"""JSON Schemas compiled once: no remote or file `$ref`, linear-time patterns, errors by path and rule."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import jsonschema_rs

from integration_service.activities.schema_bounds import MAX_NESTING, MAX_TEXT, Bounds, TooCostly, measure
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonSchema, join_path

_MAX_ERRORS = 10
_MAX_KEY = 100
_MAX_PARTS = 20
_MAX_WORK = 20_000_000  # evaluations; about a second
_MAX_VALUES = 1_000_000  # what 10 MiB of JSON hold at the very most
_ALL_ERRORS_WORK = 3_000  # the library makes every error, each with all that led to it, before it hands out the first
_FIRST_ERROR_WORK = 20_000
_MAX_VALUE_DEPTH = 900  # the library refuses a little more, after a while


def _deny(uri: str) -> Any:
    raise ValueError("$ref may only point inside its own schema")


class Schema:
    """A compiled JSON Schema. `at` names where it stands in its definition."""

    def __init__(self, schema: JsonSchema, *, at: str) -> None:
        """Raises IntegrationError VALIDATION_ERROR when it is no valid schema."""
        try:
            _check_size(schema)
            self._validator = jsonschema_rs.validator_for(
                schema,
                validate_formats=True,
                retriever=_deny,
                pattern_options=jsonschema_rs.RegexOptions(size_limit=1_000_000, dfa_size_limit=1_000_000),
            )
            self._bounds = Bounds(schema)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, RecursionError) as error:
            path = join_path(at, getattr(error, "instance_path", ()))
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, f"not a valid JSON Schema: {_reason(error)}", path=path
            ) from None

    def check(self, value: Any, *, at: str, code: ErrorCode, what: str, first_only: bool = False) -> None:
        """Raises IntegrationError with the path and rule of what does not fit; never with the value.

        A value that would take too long is refused, under the rule `depth` or `size`. The more work a value makes, the
        less is said of what is wrong: all errors, the first, or (rule `schema`) only that it does not fit.
        `first_only` is for large values: finding every error in one takes longer than a worker may stand still.
        """
        measured = measure(value, max_depth=_MAX_VALUE_DEPTH)
        work = self._bounds.work_at(measured[1]) if measured is not None else None
        if measured is None or work is None:
            raise _refusal(code, what, [{"path": at, "rule": "depth"}])
        total = work * measured[0]
        if total > _MAX_WORK or measured[0] > _MAX_VALUES:
            raise _refusal(code, what, [{"path": at, "rule": "size"}])
        if self._validator.is_valid(value):
            return
        if self._bounds.branching and total > _FIRST_ERROR_WORK:
            raise _refusal(code, what, [{"path": at, "rule": "schema"}])
        first_only = first_only or total > _ALL_ERRORS_WORK
        errors = self._first(value) if first_only else itertools.islice(self._validator.iter_errors(value), _MAX_ERRORS)
        raise _refusal(code, what, [{"path": _path(at, error), "rule": _rule(error)} for error in errors])

    def _first(self, value: Any) -> Iterable[jsonschema_rs.ValidationError]:
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            yield error


def _check_size(schema: JsonSchema) -> None:
    if measure(schema, max_depth=2 * MAX_NESTING) is None:
        raise TooCostly(f"it is nested more than {MAX_NESTING} deep")
    if len(json.dumps(schema)) > MAX_TEXT:
        raise TooCostly(f"it is longer than {MAX_TEXT // 1024} KiB")


def _refusal(code: ErrorCode, what: str, found: list[dict[str, str]]) -> IntegrationError:
    first = found[0]
    return IntegrationError(
        code, f"{what} breaks the rule `{first['rule']}`", path=first["path"], details={"errors": found}
    )


def _short(part: str | int) -> str | int:
    # A key is the sender's: a failure that quoted a long one would be too large for Temporal to carry.
    return part if isinstance(part, int) or len(part) <= _MAX_KEY else f"{part[:_MAX_KEY]}…"


def _path(at: str, error: jsonschema_rs.ValidationError) -> str:
    parts = list(error.instance_path[:_MAX_PARTS])
    # For these rules the culprit is a key that is not there, or not allowed there: name it, it is no value.
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
        parts.append(str(error.kind.property))
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
        parts.append(error.kind.unexpected[0])
    return join_path(at, [_short(part) for part in parts])


def _rule(error: jsonschema_rs.ValidationError) -> str:
    # `false` as a schema has no keyword of its own: the one that holds it is the rule.
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.FalseSchema) and error.schema_path:
        return str(error.schema_path[-1])
    return error.kind.name


def _reason(error: Exception) -> str:
    text = str(error.args[0] if error.args else error)
    return text.splitlines()[0][:200]
