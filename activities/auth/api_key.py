"""An API key in a header or a query parameter, as the credential says."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote, unquote_plus

from integration_service.activities.auth.context import AuthContext
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.credentials import ApiKey, CredentialPayload


def apply(request: OutboundRequest, credential: CredentialPayload, _: AuthContext) -> OutboundRequest:
    """Adds the header or the query parameter; one that the request already has gives way."""
    key = _key(credential)
    if key.in_header:
        return request.with_secret_header(key.header_or_param, key.key)
    bare, query = (*request.url.split("?", 1), "")[:2]
    kept = [pair for pair in query.split("&") if pair and unquote_plus(pair.partition("=")[0]) != key.header_or_param]
    kept.append(f"{quote(key.header_or_param, safe='')}={quote(key.key, safe='')}")
    return replace(request, url=f"{bare}?{'&'.join(kept)}")


def secrets(credential: CredentialPayload) -> tuple[str, ...]:
    """The key, what of it stands behind a scheme such as `Bearer`, and how it stands in a query: an address that
    comes back within another one is encoded twice."""
    given = _key(credential)
    _, _, rest = given.key.partition(" ")
    in_query = "" if given.in_header else quote(given.key, safe="")
    return tuple(dict.fromkeys(text for text in (given.key, rest, in_query) if text))


def _key(credential: CredentialPayload) -> ApiKey:
    if credential.api_key is None:
        raise TypeError("not an api_key credential")
    return credential.api_key
