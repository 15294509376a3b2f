"""HTTP Basic authentication (RFC 7617, UTF-8)."""

from __future__ import annotations

import base64

from integration_service.activities.auth.context import AuthContext
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.credentials import BasicAuth, CredentialPayload


def apply(request: OutboundRequest, credential: CredentialPayload, _: AuthContext) -> OutboundRequest:
    """Adds `Authorization: Basic`."""
    return request.with_secret_header("Authorization", f"Basic {_token(credential)}")


def secrets(credential: CredentialPayload) -> tuple[str, ...]:
    """The password, and user and password as they are sent."""
    basic = _basic(credential)
    return (f"{basic.username}:{basic.password}", basic.password)


def _token(credential: CredentialPayload) -> str:
    basic = _basic(credential)
    return base64.b64encode(f"{basic.username}:{basic.password}".encode()).decode()


def _basic(credential: CredentialPayload) -> BasicAuth:
    if credential.basic_auth is None:
        raise TypeError("not a basic credential")
    return credential.basic_auth
