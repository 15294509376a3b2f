"""Authorization server metadata (RFC 8414, OpenID Connect Discovery)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from integration_service.activities.oauth.answers import read_object
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.errors import ErrorCode, IntegrationError


@dataclass(frozen=True)
class ProviderMetadata:
    """The endpoints that a provider names for itself."""

    authorization_endpoint: str | None
    token_endpoint: str | None
    revocation_endpoint: str | None
    device_authorization_endpoint: str | None
    iss_parameter_supported: bool


def metadata_urls(issuer: str) -> list[str]:
    """Where an issuer's metadata may lie: OpenID's place first, then RFC 8414's (§3.1).

    Raises IntegrationError CONFIG_ERROR for an issuer that is no URL, or has a query or fragment (§2).
    """
    if not is_http_url(issuer) or {"?", "#"} & set(issuer):
        raise IntegrationError(
            ErrorCode.CONFIG_ERROR, "must be an http or https URL without query or fragment", path="oauth2Config.issuer"
        )
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return [
        f"{origin}{path}/.well-known/openid-configuration",
        f"{origin}/.well-known/oauth-authorization-server{path}",
    ]


def read_metadata(issuer: str, response: InboundResponse) -> ProviderMetadata:
    """Raises IntegrationError MALFORMED_RESPONSE, also when they are another issuer's (RFC 8414 §3.3)."""
    found = read_object(response) if response.status == 200 else None
    if found is None:
        raise _wrong(f"no metadata there (status {response.status})")
    if found.get("issuer") != issuer:
        raise _wrong("the metadata is another issuer's")
    secure = urlsplit(issuer).scheme == "https"
    return ProviderMetadata(
        authorization_endpoint=_url(found, "authorization_endpoint", secure=secure),
        token_endpoint=_url(found, "token_endpoint", secure=secure),
        revocation_endpoint=_url(found, "revocation_endpoint", secure=secure),
        device_authorization_endpoint=_url(found, "device_authorization_endpoint", secure=secure),
        iss_parameter_supported=found.get("authorization_response_iss_parameter_supported") is True,
    )


def is_http_url(text: str) -> bool:
    """Whether a text is an absolute http or https URL, without user and control characters."""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return sound and parts.username is None and not re.search(r"[\s\\\x00-\x1f\x7f]", text)


def _url(found: dict[str, Any], key: str, *, secure: bool) -> str | None:
    value = found.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not is_http_url(value):
        raise _wrong(f"{key} is no URL")
    if secure and urlsplit(value).scheme != "https":
        raise _wrong(f"{key} is not https, but the issuer is")
    return value


def _wrong(why: str) -> IntegrationError:
    return IntegrationError(ErrorCode.MALFORMED_RESPONSE, why, path="oauth2Config.issuer")
