"""An OAuth 2.0 access token (RFC 6750 §2.1, RFC 6749 §7.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from integration_service.activities.auth import basic
from integration_service.activities.auth.context import AuthContext
from integration_service.activities.auth.header import with_credential
from integration_service.activities.auth.template import credential_template, texts_within
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.activities.url_template import UrlTemplate
from integration_service.contracts.credentials import CredentialPayload
from integration_service.contracts.definitions import PLACEHOLDER, DefinitionFile, OAuth2Config
from integration_service.contracts.errors import ErrorCode, IntegrationError

_SECRET_KEY = re.compile("token|secret|assertion|code", re.IGNORECASE)
_SHORTEST_SECRET = 16
"""Shorter strings under such a key are words, such as a token's type."""
_URLS = ("authorization_url", "token_url", "refresh_url", "revocation_url", "device_authorization_url", "issuer")


def apply(request: OutboundRequest, credential: CredentialPayload, context: AuthContext) -> OutboundRequest:
    """Adds `Authorization`: scheme `Bearer`, unless the definition names another.

    What an answer calls the token's type is no scheme: Slack says ``bot``. Raises IntegrationError AUTH_ERROR while
    there is no token, or one that no header holds.
    """
    tokens = credential.oauth2
    if tokens is None:
        raise IntegrationError(ErrorCode.AUTH_ERROR, "there is no access token yet")
    config = context.definition.oauth2_config if context.definition else None
    scheme = (config.authorization_scheme if config else None) or "Bearer"
    return with_credential(request, "Authorization", f"{scheme} {tokens.access_token}", what="the access token")


def secrets(credential: CredentialPayload) -> tuple[str, ...]:
    """The tokens, what of the provider's answer looks like one, and what grant `password` renews them with."""
    found: list[str] = []
    if (tokens := credential.oauth2) is not None:
        raw = tokens.raw_response or {}
        found += [tokens.access_token, tokens.refresh_token or "", *_answered(raw, secret=False)]
        if isinstance(id_token := raw.get("id_token"), str):
            found.append(id_token)
    if credential.basic_auth is not None:
        found += basic.secrets(credential)
    return tuple(text for text in found if text)


def check(definition: DefinitionFile) -> None:
    """Whether the grant has the URLs that it needs, and every template can be filled.

    Raises IntegrationError VALIDATION_ERROR with the path.
    """
    config = definition.oauth2_config
    if config is None:
        raise _wrong("oauth2Config", "authType oauth2 needs it")
    needed = {"token_url": "every grant"}
    if config.grant == "authorization_code":
        needed["authorization_url"] = "grant authorization_code"
    elif config.grant == "device_code":
        needed["device_authorization_url"] = "grant device_code"
    for field, who in needed.items():
        if getattr(config, field) is None and config.issuer is None:
            raise _wrong(_path(field), f"{who} needs it, or an issuer to ask for it")
    for field in _URLS:
        if (url := getattr(config, field)) is not None:
            _check_url(url, at=_path(field))
    if config.token_request is not None:
        for part in ("parameters", "headers", "claims"):
            texts = texts_within(getattr(config.token_request, part), at=f"oauth2Config.tokenRequest.{part}")
            for path, text in texts:
                credential_template(text, at=path, roots=("config",))
    if config.pkce is False and config.grant != "authorization_code":
        raise _wrong("oauth2Config.pkce", "PKCE belongs to grant authorization_code: leave it out")


def _answered(value: Any, *, secret: bool) -> Iterator[str]:
    match value:
        case str():
            if secret and len(value) >= _SHORTEST_SECRET:
                yield value
        case dict():
            for key, inner in value.items():
                yield from _answered(inner, secret=secret or bool(_SECRET_KEY.search(key)))
        case list():
            for inner in value:
                yield from _answered(inner, secret=secret)


def _check_url(url: str, *, at: str) -> None:
    UrlTemplate(url, at=at)
    # A hole at the very start is a whole URL, elsewhere a piece of one: a digit fits a host, a port and a path.
    sample = PLACEHOLDER.sub("1", re.sub(r"^\{[^{}]*\}", "https://host", url))
    try:
        parts = urlsplit(sample)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.username is not None or re.search(r"[\s\\#\x00-\x1f\x7f]", sample):
        raise _wrong(at, "must be an http or https URL without user or fragment")


def _path(field: str) -> str:
    return f"oauth2Config.{OAuth2Config.model_fields[field].alias}"


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)
