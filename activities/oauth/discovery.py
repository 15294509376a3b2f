"""Authorization server metadata (RFC 8414, OpenID Connect Discovery)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

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
    """Where an issuer's metadata may lie: OpenID's place first, then RFC 8414's."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return [
        f"{origin}{path}/.well-known/openid-configuration",
        f"{origin}/.well-known/oauth-authorization-server{path}",
    ]


def read_metadata(issuer: str, response: InboundResponse) -> ProviderMetadata:
    """Raises IntegrationError MALFORMED_RESPONSE, also when they are another issuer's (RFC 8414 §3.3)."""
    try:
        found: Any = json.loads(response.body) if response.status == 200 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _wrong(f"no metadata there (status {response.status})")
    if found.get("issuer") != issuer:
        raise _wrong("the metadata is another issuer's")
    return ProviderMetadata(
        authorization_endpoint=_url(found, "authorization_endpoint"),
        token_endpoint=_url(found, "token_endpoint"),
        revocation_endpoint=_url(found, "revocation_endpoint"),
        device_authorization_endpoint=_url(found, "device_authorization_endpoint"),
        iss_parameter_supported=found.get("authorization_response_iss_parameter_supported") is True,
    )


def _url(found: dict[str, Any], key: str) -> str | None:
    value = found.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or urlsplit(value).scheme not in ("http", "https"):
        raise _wrong(f"{key} is no URL")
    return value


def _wrong(why: str) -> IntegrationError:
    return IntegrationError(ErrorCode.MALFORMED_RESPONSE, why, path="oauth2Config.issuer")
