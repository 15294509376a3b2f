"""How a credential goes onto a request: one module a kind, each a step from request to request."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, quote_plus

from integration_service.activities.auth import api_key, basic
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.credentials import CredentialPayload
from integration_service.contracts.definitions import IntegrationAuthType

Apply = Callable[[OutboundRequest, CredentialPayload], OutboundRequest]
Secrets = Callable[[CredentialPayload], tuple[str, ...]]

_APPLY: dict[IntegrationAuthType, Apply] = {
    IntegrationAuthType.BASIC: basic.apply,
    IntegrationAuthType.API_KEY: api_key.apply,
}
_SECRETS: dict[IntegrationAuthType, Secrets] = {
    IntegrationAuthType.BASIC: basic.secrets,
    IntegrationAuthType.API_KEY: api_key.secrets,
}
SUPPORTED = frozenset({IntegrationAuthType.NONE, *_APPLY})
"""The kinds that this version can connect."""


def authenticate(request: OutboundRequest, credential: CredentialPayload | None) -> OutboundRequest:
    """The request with its credential on it; a header that carries it is marked as secret."""
    if credential is None:
        return request
    return _APPLY[credential.type](request, credential)


def secret_texts(credential: CredentialPayload | None) -> tuple[str, ...]:
    """Every spelling in which the credential's secrets could come back: as they are, encoded, as sent."""
    if credential is None:
        return ()
    spellings: dict[str, None] = {}
    for text in _SECRETS[credential.type](credential):
        spellings |= dict.fromkeys((text, quote(text, safe=""), quote_plus(text), *basic.base64_spellings(text)))
    # Longest first, so that a short one never leaves a piece of a long one standing.
    return tuple(sorted((text for text in spellings if text), key=len, reverse=True))
