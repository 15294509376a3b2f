"""The ID token (OpenID Connect Core §2): who authorised."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime, timedelta
from typing import Any

from integration_service.activities.oauth.token_answer import Tokens
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

_SKEW = timedelta(minutes=2)


def claims_of(id_token: str, *, issuer: str | None, client_id: str, nonce: str | None, now: datetime) -> JsonObject:
    """The claims, checked as far as they bind the answer to our request.

    Its signature is not: it came from the token endpoint itself (OpenID Connect Core §3.1.3.7 (6)). Raises
    IntegrationError AUTH_ERROR.
    """
    try:
        _, payload, _ = id_token.split(".")
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise _wrong("cannot be read") from None
    if not isinstance(claims, dict):
        raise _wrong("cannot be read")
    if issuer is not None and claims.get("iss") != issuer:
        raise _wrong("is of another issuer")
    audience = claims.get("aud")
    if client_id not in (audience if isinstance(audience, list) else [audience]):
        raise _wrong("is meant for another client")
    expires = claims.get("exp")
    if not isinstance(expires, int | float) or expires < (now - _SKEW).timestamp():
        raise _wrong("has expired")
    if nonce is not None and claims.get("nonce") != nonce:
        raise _wrong("answers another request")
    return claims


def account_of(config: OAuth2Config, tokens: Tokens, claims: JsonObject | None) -> str | None:
    """What tells this account from another: the mapped field, else the ID token's `sub`."""
    if config.token_response is not None and config.token_response.account is not None:
        return tokens.account
    subject = (claims or {}).get("sub")
    return subject if isinstance(subject, str) else None


def _wrong(why: str) -> IntegrationError:
    return IntegrationError(ErrorCode.AUTH_ERROR, f"the provider's ID token {why}", path="id_token")
