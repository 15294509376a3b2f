"""An authorization server's refusal (RFC 6749 §5.2, RFC 8628 §3.5), and what it decides."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from integration_service.activities.oauth.answers import at_path
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.outbound.retry_after import requested_delay
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import TokenResponseMapping
from integration_service.contracts.wire import JsonObject

_ERROR_CODE = re.compile(r"[a-z0-9_.-]{1,64}", re.IGNORECASE)
_PASSING_ERRORS = frozenset({"server_error", "temporarily_unavailable"})
_PASSING_STATUSES = frozenset({408, 425})
_LONGEST_WAIT = timedelta(hours=1)
"""A provider that asks for more is asked again after that: a token would die over a header."""
_STANDARD = frozenset(
    {
        *("invalid_request", "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"),
        *("access_denied", "authorization_pending", "slow_down", "expired_token"),
    }
)
"""Codes that a message may show: these words are the standard's, not the provider's."""


class TokenRefused(IntegrationError):
    """No token. `error` is the provider's code (RFC 6749 §5.2); `invalid_grant` says that what was spent is dead;
    `lost` that the answer may hide a success: then the same token may be worth another try."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        error: str | None = None,
        invalid_grant: bool = False,
        lost: bool = False,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(code, message, details={"error": error} if error else None, retry_after=retry_after)
        self.error = error
        self.invalid_grant = invalid_grant
        self.lost = lost


def check_answer(
    mapping: TokenResponseMapping, response: InboundResponse, body: JsonObject | None, *, now: datetime
) -> JsonObject:
    """The body, if the server said yes. Raises TokenRefused, in which nothing of the body stands but a code."""
    status = response.status
    delay = requested_delay(response.headers, now=now) if status in (429, 503) else None
    if delay is not None:
        delay = min(delay, _LONGEST_WAIT)
    said = _said(mapping, body)
    error = said if said is not None and _ERROR_CODE.fullmatch(said) else None
    if status == 429:
        raise TokenRefused(
            ErrorCode.RATE_LIMITED, "the provider limits token requests (429)", error=error, retry_after=delay
        )
    if body is None or not (200 <= status < 300 or 400 <= status < 500) or status in _PASSING_STATUSES:
        raise TokenRefused(
            ErrorCode.UNAVAILABLE,
            f"the provider gave no token answer (status {status})",
            error=error,
            lost=True,
            retry_after=delay,
        )
    if said is None and status < 300:
        return body
    if said == "invalid_grant" or said in mapping.invalid_grant:
        raise TokenRefused(
            ErrorCode.REAUTH_REQUIRED,
            "the provider refuses what was given for a token (invalid_grant)",
            error=error,
            invalid_grant=True,
        )
    if said in _PASSING_ERRORS:
        raise TokenRefused(ErrorCode.UNAVAILABLE, f"the provider cannot answer now ({said})", error=error)
    shown = said if said in _STANDARD else f"status {status}"
    raise TokenRefused(ErrorCode.AUTH_ERROR, f"the provider refuses the token request ({shown})", error=error)


@contextmanager
def without_what_was_sent(request: OutboundRequest) -> Iterator[None]:
    """A provider that says what `request` sent it says no error code, and may say a secret: it is left out."""
    try:
        yield
    except TokenRefused as refused:
        if refused.error is None or refused.error in _STANDARD or not _stands_in(refused.error, request):
            raise
        raise TokenRefused(
            refused.code,
            "the provider refuses the token request",
            invalid_grant=refused.invalid_grant,
            lost=refused.lost,
            retry_after=refused.retry_after,
        ) from None


def _stands_in(error: str, request: OutboundRequest) -> bool:
    headers = [value for _, value in request.headers]
    # Client and secret are percent-encoded below the base64 (RFC 6749 §2.3.1); an error's letters never are.
    basic = [_decoded(value.partition(" ")[2]) for value in headers if value.startswith("Basic ")]
    sent = [request.url, (request.body or b"").decode(errors="replace"), *headers, *basic]
    return any(error in text for text in sent)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode(errors="replace")
    except ValueError:
        return ""


def _said(mapping: TokenResponseMapping, body: JsonObject | None) -> str | None:
    """What stands where the error does; "" if it is no word."""
    found: Any = at_path(body, mapping.error)
    if isinstance(found, dict):
        # Some nest it: {"error": {"code" or "type": …}}.
        found = next((found[key] for key in ("code", "type", "error") if isinstance(found.get(key), str | int)), True)
    if not found:  # absent, "", 0 or false: providers say so that there is none
        return None
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else ""
