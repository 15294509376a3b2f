"""What the `errors` of a GraphQL answer mean.

Sources: https://spec.graphql.org/September2025/#sec-Errors; for the codes
https://www.apollographql.com/docs/apollo-server/data/errors (UNAUTHENTICATED),
https://shopify.dev/docs/api/admin-graphql#status_and_error_codes (THROTTLED) and
https://docs.github.com/graphql/overview/rate-limits-and-query-limits-for-the-graphql-api (`type` RATE_LIMITED).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration_service.activities.adapters.graphql_cost import cost_delay
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

_THROTTLES = frozenset({"THROTTLED", "RATE_LIMITED", "RATELIMITED", "RATE_LIMIT_EXCEEDED", "TOO_MANY_REQUESTS"})
_MAX_ERRORS = 10
_MAX_MESSAGE = 256
_MAX_CODE = 100
_MAX_PARTS = 20


def failure_of(answer: JsonObject, *, status: int, may_have_acted: bool = False) -> IntegrationError:
    """The failure that an answer without data tells: RATE_LIMITED where every error is a throttle, AUTH_ERROR where
    one says UNAUTHENTICATED, else GRAPHQL_ERROR; always that for a mutation that may have acted, since the other two
    say that it may be sent again. Details are ``{"errors", "data", "statusCode"}``; of the errors, at most ten, only
    what identifies them and their own words, cut short."""
    errors: list[Any] = answer["errors"]
    codes = {_upper(_code(error)) for error in errors}
    shown = [_shown(error) for error in errors[:_MAX_ERRORS]]
    details = {"errors": shown, "data": None, "statusCode": status}
    if codes <= _THROTTLES and not may_have_acted:
        return IntegrationError(
            ErrorCode.RATE_LIMITED,
            "the upstream answers that too much is asked of it",
            details=details,
            retry_after=cost_delay(answer),
        )
    if "UNAUTHENTICATED" in codes and not may_have_acted:
        return IntegrationError(ErrorCode.AUTH_ERROR, "the upstream refuses the credential", details=details)
    count = "an error" if len(errors) == 1 else f"{len(errors)} errors"
    return IntegrationError(ErrorCode.GRAPHQL_ERROR, f"the upstream answered {count} and no data", details=details)


def _shown(error: Any) -> JsonObject:
    message, path, locations = _get(error, "message"), _get(error, "path"), _get(error, "locations")
    code = _code(error)
    shown: JsonObject = {}
    if isinstance(message, str):
        shown["message"] = message[:_MAX_MESSAGE]
    if isinstance(path, list):
        shown["path"] = [
            part[:_MAX_CODE] if isinstance(part, str) else part
            for part in path[:_MAX_PARTS]
            if isinstance(part, str) or _is_count(part)
        ]
    if isinstance(locations, list):
        shown["locations"] = [
            {"line": place["line"], "column": place["column"]}
            for place in locations[:_MAX_PARTS]
            if _is_count(_get(place, "line")) and _is_count(_get(place, "column"))
        ]
    if code is not None:
        shown["extensions"] = {"code": code[:_MAX_CODE]}
    return shown


def _code(error: Any) -> str | None:
    """`extensions.code`, else GitHub's `type`."""
    code = _get(_get(error, "extensions"), "code")
    found = code if code is not None else _get(error, "type")
    return found if isinstance(found, str) else None


def _upper(code: str | None) -> str | None:
    return code.upper().replace("-", "_") if code else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None
