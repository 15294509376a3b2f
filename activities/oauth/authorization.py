"""The authorization request (RFC 6749 §4.1.1) with PKCE (RFC 7636)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from integration_service.contracts.definitions import OAuth2Config


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
    """Where the person goes. Neither `extra` nor the endpoint's own query replaces a parameter of the protocol."""
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
    asked_for = {**{name: value for name, value in extra.items() if name not in own}, **own}
    parts = urlsplit(endpoint)
    # None may stand twice (RFC 6749 §3.1): a server would take either.
    kept = parse_qsl(parts.query, keep_blank_values=True)
    query = parts.query
    if any(name in asked_for for name, _ in kept):
        query = urlencode([(name, value) for name, value in kept if name not in asked_for])
    query = "&".join(text for text in (query, urlencode(asked_for)) if text)
    return urlunsplit(parts._replace(query=query, fragment=""))


def requested_scope(config: OAuth2Config) -> str | None:
    """The definition's scope, joined as the provider wants it."""
    separator = config.scope_separator or " "
    names = (config.scope or "").replace(separator, " ").split()
    return separator.join(names) or None


def missing_scope(
    requested: str | None, granted: str | None, separator: str | None, *, aliases: Mapping[str, str] | None = None
) -> list[str]:
    """What was asked for and not granted. An answer that names no scope granted all (RFC 6749 §5.1).

    Providers answer with commas what was asked for with spaces, and the other way round; `aliases` maps a scope to
    the other name under which it is granted.
    """
    if requested is None or granted is None:
        return []
    given = {*_names(granted, separator), *granted.split()}
    return [name for name in _names(requested, separator) if not given & {name, (aliases or {}).get(name, name)}]


def _names(scope: str, separator: str | None) -> list[str]:
    return scope.replace(separator or " ", " ").replace(",", " ").split()
