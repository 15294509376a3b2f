"""The authorization request (RFC 6749 §4.1.1) with PKCE (RFC 7636)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit, urlunsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from integration_service.contracts.definitions import OAuth2Config

_SEPARATORS = re.compile(r"[\s,]+")


def new_secret() -> str:
    """256 random bits, base64url: a state, a PKCE verifier (43 characters, RFC 7636 §4.1), a nonce."""
    return secrets.token_urlsafe(32)


def authorization_url(
    *,
    endpoint: str,
    client_id: str,
    redirect_uri: str,
    state: str,
    scope: str | None,
    verifier: str | None,
    nonce: str | None,
    extra: Mapping[str, str],
    rename: Mapping[str, str],
) -> str:
    """Where the person goes. `extra` may add parameters and never replaces one of the protocol's own."""
    asked = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": state,
        "nonce": nonce,
    }
    if verifier is not None:
        challenge = create_s256_code_challenge(verifier)  # type: ignore[no-untyped-call]
        asked |= {"code_challenge": challenge, "code_challenge_method": "S256"}
    own = {rename.get(name, name): value for name, value in asked.items() if value is not None}
    query = urlencode({**{name: value for name, value in extra.items() if name not in own}, **own})
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(query=f"{parts.query}&{query}" if parts.query else query, fragment=""))


def requested_scope(config: OAuth2Config) -> str | None:
    """The definition's scope, joined as the provider wants it."""
    names = _SEPARATORS.split(config.scope.strip()) if config.scope else []
    return (config.scope_separator or " ").join(names) or None


def missing_scope(requested: str | None, granted: str | None, separator: str | None) -> list[str]:
    """What was asked for and not granted. An answer that names no scope granted all (RFC 6749 §5.1)."""
    if requested is None or granted is None:
        return []
    splits = re.compile(r"[\s,]+" if separator in (None, " ", ",") else rf"(?:\s|{re.escape(separator)})+")
    given = set(splits.split(granted))
    return [name for name in splits.split(requested) if name and name not in given]
