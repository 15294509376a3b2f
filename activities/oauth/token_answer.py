"""The token answer (RFC 6749 §5), in the many shapes that providers give it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from integration_service.activities.outbound.messages import InboundResponse
from integration_service.activities.outbound.retry_after import requested_delay
from integration_service.contracts.credentials import OAuth2Credential
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import TokenResponseMapping

_ERROR_CODE = re.compile(r"[a-z0-9_.-]{1,64}", re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]+")
_TOKEN_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_LONGEST_LIFE = timedelta(days=3650)
_EPOCH_MS = 1e11
"""Numbers above this are epoch milliseconds; below, epoch seconds."""


@dataclass(frozen=True)
class Tokens:
    """What a token request gave."""

    credential: OAuth2Credential
    account: str | None = None
    id_token: str | None = field(default=None, repr=False)


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


def read_tokens(
    config: OAuth2Config,
    response: InboundResponse,
    *,
    now: datetime,
    previous: OAuth2Credential | None = None,
    callback: Mapping[str, str] | None = None,
) -> Tokens:
    """The tokens of an answer; what it omits is kept from `previous`.

    Raises TokenRefused. Nothing of the body stands in it but an error code.
    """
    mapping = config.token_response or TokenResponseMapping()
    body = _body(response)
    _refuse(mapping, response, body, now)
    access_token = _text(body, mapping.access_token)
    if access_token is None or not _TOKEN.fullmatch(access_token):
        raise TokenRefused(ErrorCode.UNAVAILABLE, "the provider's answer holds no access token", lost=True)
    refresh_token = _text(body, mapping.refresh_token)
    token_type = _text(body, mapping.token_type) or "Bearer"
    connection = dict(previous.connection or {}) if previous else {}
    for name, path in mapping.connection.items():
        root, _, rest = path.partition(".")
        found = (callback or {}).get(rest) if root == "callback" else at_path(body, path)
        if isinstance(found, str | int | float):
            connection[name] = found
    account = at_path(body, mapping.account) if mapping.account else None
    return Tokens(
        credential=OAuth2Credential(
            access_token=access_token,
            refresh_token=refresh_token or (previous.refresh_token if previous else None),
            expires_at=_expiry(mapping, body, now),
            token_type=token_type if _TOKEN_TYPE.fullmatch(token_type) else "Bearer",
            scope=_scope(at_path(body, mapping.scope)) or (previous.scope if previous else None),
            raw_response=body,
            connection=connection or None,
            account=previous.account if previous else None,
        ),
        account=str(account) if isinstance(account, str | int) and not isinstance(account, bool) else None,
        id_token=_text(body, mapping.id_token),
    )


def at_path(value: Any, path: str) -> Any:
    """What stands at a dotted path, or None."""
    for key in path.split("."):
        if isinstance(value, list) and key.isascii() and key.isdigit():
            value = value[int(key)] if int(key) < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def _body(response: InboundResponse) -> dict[str, Any] | None:
    """The answer's object, None for anything else. Some providers answer form-encoded, as if it were 2010."""
    text = response.body.decode("utf-8", "replace")
    if "html" in response.content_type:
        return None
    try:
        found = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        pairs = dict(parse_qsl(text)) if response.content_type != "application/json" else {}
        return dict(pairs) if pairs.keys() & {"access_token", "error"} else None
    return found if isinstance(found, dict) else None


def _refuse(
    mapping: TokenResponseMapping, response: InboundResponse, body: dict[str, Any] | None, now: datetime
) -> None:
    status = response.status
    delay = requested_delay(response.headers, now=now) if status in (429, 503) else None
    if status == 429:
        raise TokenRefused(ErrorCode.RATE_LIMITED, "the provider limits token requests (429)", retry_after=delay)
    error = _error(mapping, body)
    if 200 <= status < 300 and body is not None and error is None:
        return
    named = error if error is not None and _ERROR_CODE.fullmatch(error) else None
    if error is not None and status < 500 and (error == "invalid_grant" or error in mapping.invalid_grant):
        raise TokenRefused(
            ErrorCode.REAUTH_REQUIRED,
            "the provider refuses what was given for a token (invalid_grant)",
            error=named,
            invalid_grant=True,
        )
    if error is not None and status < 500 and error not in ("server_error", "temporarily_unavailable"):
        what = f"the provider refuses the token request ({named or status})"
        raise TokenRefused(ErrorCode.AUTH_ERROR, what, error=named)
    if body is not None and 400 <= status < 500:
        raise TokenRefused(ErrorCode.AUTH_ERROR, f"the provider refuses the token request ({status})")
    raise TokenRefused(
        ErrorCode.UNAVAILABLE,
        f"the provider gave no token answer (status {status})",
        error=named,
        lost=True,
        retry_after=delay,
    )


def _error(mapping: TokenResponseMapping, body: dict[str, Any] | None) -> str | None:
    found = at_path(body, mapping.error)
    if isinstance(found, dict):
        # Some nest it: {"error": {"code" or "type": …}}.
        found = next((found[key] for key in ("code", "type", "error") if isinstance(found.get(key), str)), "error")
    return found if isinstance(found, str) and found else None


def _text(body: Any, path: str) -> str | None:
    found = at_path(body, path)
    return found if isinstance(found, str) and found else None


def _scope(found: Any) -> str | None:
    if isinstance(found, list):
        return " ".join(name for name in found if isinstance(name, str)) or None
    return found.replace("\x00", "") if isinstance(found, str) and found else None


def _expiry(mapping: TokenResponseMapping, body: Any, now: datetime) -> datetime | None:
    absolute = _moment(at_path(body, mapping.expires_at))
    if absolute is not None:
        return absolute
    number = _number(at_path(body, mapping.expires_in))
    if number is None:
        default = mapping.default_expires_in_ms
        return now + timedelta(milliseconds=default) if default is not None else None
    if number > _LONGEST_LIFE.total_seconds() * (1000 if mapping.expires_in_unit == "ms" else 1):
        return _moment(number)  # an absolute time under the name of a span
    seconds = number / 1000 if mapping.expires_in_unit == "ms" else number
    return now + timedelta(seconds=max(seconds, 0))


def _moment(value: Any) -> datetime | None:
    """Epoch seconds, epoch milliseconds or RFC 3339. What is beyond every calendar is no expiry."""
    number = _number(value)
    try:
        if number is not None:
            moment = datetime.fromtimestamp(number / 1000 if number > _EPOCH_MS else number, UTC)
        elif isinstance(value, str):
            moment = datetime.fromisoformat(value)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return moment if 1970 < moment.year < 9000 else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
