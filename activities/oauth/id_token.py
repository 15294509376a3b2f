"""The ID token (OpenID Connect Core §2): who authorised."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any

from integration_service.activities.oauth.answers import at_path, sound
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
    claims = _claims(id_token)
    if issuer is not None and claims.get("iss") != issuer:
        raise _wrong("is of another issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        raise _wrong("is meant for another client")
    if len(audiences) > 1 and claims.get("azp", client_id) != client_id:
        raise _wrong("was issued to another client")
    expires = claims.get("exp")
    # Put so that it fails for what is no number as well.
    if not isinstance(expires, int | float) or not expires > (now - _SKEW).timestamp():
        raise _wrong("has expired")
    if nonce is not None and claims.get("nonce") != nonce:
        raise _wrong("answers another request")
    return claims


def account_of(config: OAuth2Config, tokens: Tokens, claims: JsonObject | None) -> str | None:
    """What tells this account from another: the mapped field, of the answer or the ID token, else its `sub`."""
    mapped = config.token_response.account if config.token_response is not None else None
    if mapped is not None and tokens.account is not None:
        return tokens.account
    found = at_path(claims, mapped or "sub")
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) and found != "" else None


def _claims(id_token: str) -> JsonObject:
    try:
        _, payload, _ = id_token.split(".")
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        raise _wrong("cannot be read") from None
    if not isinstance(claims, dict):
        raise _wrong("cannot be read")
    whole: JsonObject = sound(claims)
    return whole


def _wrong(why: str) -> IntegrationError:
    return IntegrationError(ErrorCode.AUTH_ERROR, f"the provider's ID token {why}", path="id_token")
