"""The token answer (RFC 6749 §5), in the many shapes that providers give it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from integration_service.activities.oauth.answers import at_path, read_object, text_at
from integration_service.activities.oauth.refusal import TokenRefused, check_answer
from integration_service.activities.oauth.token_expiry import expiry_of
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.credentials import OAuth2Credential
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode
from integration_service.contracts.oauth import TokenResponseMapping
from integration_service.contracts.wire import JsonObject

__all__ = ["TokenRefused", "Tokens", "read_tokens"]

_TOKEN = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
"""RFC 6749 §A.12, without the blanks at the ends that a header would lose."""
_TOKEN_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_LONGEST_SCOPE = 16_384
_STANDARD = TokenResponseMapping()


@dataclass(frozen=True)
class Tokens:
    """What a token request gave."""

    credential: OAuth2Credential
    account: str | None = None
    id_token: str | None = field(default=None, repr=False)


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
    mapping = config.token_response or _STANDARD
    form_keys = {path.partition(".")[0] for path in (mapping.access_token, mapping.error, "access_token", "error")}
    body = check_answer(mapping, response, read_object(response, form_keys=form_keys), now=now)
    places = _places(mapping, body, refreshed=previous is not None)
    access_token = text_at(body, places.access_token)
    if access_token is None or not _TOKEN.fullmatch(access_token):
        raise TokenRefused(ErrorCode.UNAVAILABLE, "the provider's answer holds no access token", lost=True)
    token_type = text_at(body, places.token_type) or ""
    account = _account(mapping, body, callback or {})
    kept = previous or OAuth2Credential(access_token=access_token)
    connection = {**(kept.connection or {}), **_connection(mapping, body, callback or {})}
    return Tokens(
        credential=OAuth2Credential(
            access_token=access_token,
            refresh_token=text_at(body, places.refresh_token) or kept.refresh_token,
            expires_at=expiry_of(places, body, now=now),
            token_type=token_type if _TOKEN_TYPE.fullmatch(token_type) else "Bearer",
            scope=_scope(at_path(body, places.scope)) or kept.scope,
            raw_response=body,
            connection=connection or None,
            account=kept.account or account,
        ),
        account=account,
        id_token=text_at(body, places.id_token),
    )


def _places(mapping: TokenResponseMapping, body: JsonObject, *, refreshed: bool) -> TokenResponseMapping:
    """Where the answer holds things. Slack nests a person's token in the answer to the code, not to a refresh; only
    there the standard places will do, lest the bot's token be taken for the person's."""
    if not refreshed or text_at(body, mapping.access_token) or not text_at(body, _STANDARD.access_token):
        return mapping
    return _STANDARD.model_copy(
        update={
            "expires_in_unit": mapping.expires_in_unit,
            "default_expires_in_ms": mapping.default_expires_in_ms,
        }
    )


def _found(body: JsonObject, path: str, callback: Mapping[str, str]) -> Any:
    root, _, rest = path.partition(".")
    return callback.get(rest) if root == "callback" and rest else at_path(body, path)


def _connection(mapping: TokenResponseMapping, body: JsonObject, callback: Mapping[str, str]) -> JsonObject:
    found = {name: _found(body, path, callback) for name, path in mapping.connection.items()}
    return {name: value for name, value in found.items() if isinstance(value, str | int | float)}


def _account(mapping: TokenResponseMapping, body: JsonObject, callback: Mapping[str, str]) -> str | None:
    found = _found(body, mapping.account, callback) if mapping.account else None
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) and found != "" else None


def _scope(found: Any) -> str | None:
    """Some list them. Control characters and scopes of a book's length have no place in a status."""
    if isinstance(found, list):
        found = " ".join(name for name in found if isinstance(name, str))
    if not isinstance(found, str) or len(found) > _LONGEST_SCOPE:
        return None
    return _CONTROL.sub(" ", found).strip() or None
