"""GraphQL over HTTP: params are the variables of one document, an answer is data, errors or both.

Sources: https://graphql.github.io/graphql-over-http/draft/, https://spec.graphql.org/September2025/#sec-Response-Format
"""

from __future__ import annotations

from typing import Any

from integration_service.activities.adapters.base_url import BaseUrl
from integration_service.activities.adapters.graphql_cost import cost_delay
from integration_service.activities.adapters.graphql_document import GraphqlDocument
from integration_service.activities.adapters.graphql_errors import failure_of
from integration_service.activities.adapters.json_text import json_bytes, load_json
from integration_service.activities.adapters.protocol import Parsed
from integration_service.activities.adapters.response_body import is_json
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.contracts.definitions import GraphqlRequest
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject, JsonSchema

_HEADERS = (
    ("Content-Type", "application/json"),
    ("Accept", "application/graphql-response+json, application/json"),
)
_STATUS_SAYS_ALL = frozenset({401, 403, 408, 429})


class GraphqlAdapter:
    """One GraphQL operation, its document checked."""

    def __init__(
        self, base_url: str, request: GraphqlRequest, *, at: str, params: JsonSchema | None = None, params_at: str = ""
    ) -> None:
        """`params` is the method's `paramSchema`, at `params_at`, where its params are the variables as they come.

        Raises IntegrationError VALIDATION_ERROR with the path of what is wrong in the definition.
        """
        self._base = BaseUrl(base_url)
        self._document = GraphqlDocument.read(request.document, at=f"{at}.document")
        if isinstance(params, dict):
            _check_variables(self._document, params, params_at)

    @property
    def idempotent(self) -> bool:
        """Queries are; mutations are not."""
        return self._document.is_query

    def build(self, *, params: JsonObject, config: JsonObject, connection: JsonObject) -> OutboundRequest:
        """The request for these variables, without its credential.

        Raises IntegrationError VALIDATION_ERROR for a variable without its value, CONFIG_ERROR for the URL.
        """
        for name in sorted(self._document.required):
            if params.get(name) is None:
                raise _wrong(f"params.{name}", "is missing, and the document's variable of that name needs a value")
        body: JsonObject = {"query": self._document.text, "variables": params}
        if self._document.operation_name is not None:
            body["operationName"] = self._document.operation_name
        return OutboundRequest(
            method="POST",
            url=self._base.render(config=config, connection=connection),
            headers=_HEADERS,
            body=json_bytes(body, at="params"),
        )

    def parse(self, response: InboundResponse) -> Parsed:
        """`data`, with `errors` beside it where it is partial.

        Raises IntegrationError MALFORMED_RESPONSE, or without data: RATE_LIMITED where every error is a throttle,
        AUTH_ERROR where one says UNAUTHENTICATED, else GRAPHQL_ERROR with details ``{"errors", "data"}``.
        """
        answer = _answer(response.body)
        if answer is None:
            raise IntegrationError(ErrorCode.MALFORMED_RESPONSE, "the upstream's answer is not a GraphQL response")
        errors, data = answer.get("errors"), answer.get("data")
        if not errors:
            return Parsed(data, hold_back=cost_delay(answer))
        if data is None:
            raise failure_of(answer, status=response.status, may_have_acted=self._may_have_acted(answer))
        return Parsed(data, errors, hold_back=cost_delay(answer))

    def refusal(self, response: InboundResponse) -> IntegrationError | None:
        """The failure that a 4xx body tells in GraphQL's form; None for 401, 403, 408, 429, 5xx and other bodies."""
        if not 400 <= response.status < 500 or response.status in _STATUS_SAYS_ALL:
            return None
        answer = _answer(response.body) if is_json(response.content_type) else None
        errors = answer.get("errors") if answer is not None else None
        # Others say `errors` too; each of GraphQL's has a message.
        if (
            not answer
            or not errors
            or not all(isinstance(error, dict) and isinstance(error.get("message"), str) for error in errors)
        ):
            return None
        return failure_of(answer, status=response.status, may_have_acted=self._may_have_acted(answer))

    def _may_have_acted(self, answer: dict[str, Any]) -> bool:
        """Whether a mutation may have had an effect before its error: fields ran, or it is not told that none did."""
        return not self.idempotent and ("data" in answer or any("path" in error for error in answer["errors"]))


def _check_variables(document: GraphqlDocument, params: dict[str, Any], at: str) -> None:
    """Refuse what can only be a mistake: a param that is no variable, or a variable that no param can fill."""
    properties = params.get("properties")
    if not isinstance(properties, dict):
        return
    for name in properties:
        if name not in document.variables:
            raise _wrong(f"{at}.properties.{name}", "the document declares no variable of that name")
    closed = params.get("additionalProperties") is False and not params.get("patternProperties")
    for name in sorted(document.required - properties.keys()):
        if closed:
            raise _wrong(f"{at}.properties", f"the document's variable {name} needs a value, and no param gives one")


def _answer(body: bytes) -> dict[str, Any] | None:
    """A well-formed GraphQL response, or None. An empty list of errors, or null, is none."""
    try:
        answer = load_json(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or not answer.keys() & {"data", "errors"}:
        return None
    errors, data = answer.get("errors"), answer.get("data")
    if not isinstance(errors, list | None) or not isinstance(data, dict | None):
        return None
    return answer if "data" in answer or errors else None


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)
