"""How a credential goes onto a request: one module a kind, each a step from request to request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from integration_service.activities.auth import api_key, basic, custom, jwt, oauth2, username_token
from integration_service.activities.auth.context import AuthContext
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.credentials import CredentialPayload
from integration_service.contracts.definitions import DefinitionFile, IntegrationAuthType
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.telemetry.spellings import spellings

Apply = Callable[[OutboundRequest, CredentialPayload, AuthContext], OutboundRequest]
Secrets = Callable[[CredentialPayload], tuple[str, ...]]

_APPLY: dict[IntegrationAuthType, Apply] = {
    IntegrationAuthType.BASIC: basic.apply,
    IntegrationAuthType.API_KEY: api_key.apply,
    IntegrationAuthType.OAUTH2: oauth2.apply,
    IntegrationAuthType.JWT: jwt.apply,
    IntegrationAuthType.CUSTOM: custom.apply,
}
_SECRETS: dict[IntegrationAuthType, Secrets] = {
    IntegrationAuthType.BASIC: basic.secrets,
    IntegrationAuthType.API_KEY: api_key.secrets,
    IntegrationAuthType.OAUTH2: oauth2.secrets,
    IntegrationAuthType.JWT: jwt.secrets,
    IntegrationAuthType.CUSTOM: custom.secrets,
}
_CHECK: dict[IntegrationAuthType, Callable[[DefinitionFile], None]] = {
    IntegrationAuthType.OAUTH2: oauth2.check,
    IntegrationAuthType.JWT: jwt.check,
    IntegrationAuthType.CUSTOM: custom.check,
}


def authenticate(
    request: OutboundRequest,
    credential: CredentialPayload | None,
    *,
    definition: DefinitionFile | None = None,
    config: JsonObject | None = None,
    now: datetime | None = None,
) -> OutboundRequest:
    """The request with its credential on it; a header that carries it is marked as secret.

    `config` is the instance's merged one. Raises IntegrationError, mostly AUTH_ERROR, and names no value.
    """
    if credential is None:
        return request
    context = AuthContext(definition=definition, config=config or {}, now=now or datetime.now(UTC))
    apply = _APPLY[credential.type]
    if apply is basic.apply and username_token.applies(context):
        apply = username_token.apply
    return apply(request, credential, context)


def check_credential(credential: CredentialPayload, definition: DefinitionFile) -> None:
    """Whether a credential can do what the definition asks of it, before it is stored.

    Raises IntegrationError VALIDATION_ERROR (path ``sealed.jwt``) that names no value.
    """
    if credential.jwt is None:
        return
    try:
        jwt.prove(credential, definition)
    except IntegrationError as error:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, error.message, path="sealed.jwt") from None


def secret_texts(credential: CredentialPayload | None, *, sent: OutboundRequest | None = None) -> tuple[str, ...]:
    """Every spelling in which the credential's secrets could come back: as they are, encoded, as sent.

    `sent` is the request that `authenticate` made: a token that was minted for it stands nowhere else.
    """
    if credential is None:
        return ()
    texts = _SECRETS[credential.type](credential)
    if sent is not None and credential.jwt is not None:
        texts += jwt.sent_secrets(sent)
    if sent is not None and credential.basic_auth is not None:
        texts += username_token.sent_secrets(sent)
    found: dict[str, None] = {}
    for text in texts:
        found |= spellings(text)
    # Longest first, so that a short one never leaves a piece of a long one standing.
    return tuple(sorted((text for text in found if text), key=len, reverse=True))


def check_auth(definition: DefinitionFile) -> None:
    """Whether the definition says all that its `authType` needs, before it is published.

    Raises IntegrationError VALIDATION_ERROR with the path.
    """
    for key, given, kind in (
        ("jwtConfig", definition.jwt_config, IntegrationAuthType.JWT),
        ("customAuth", definition.custom_auth, IntegrationAuthType.CUSTOM),
        ("soap", definition.soap, IntegrationAuthType.BASIC),
    ):
        if given is not None and definition.auth_type is not kind:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"belongs to authType {kind}", path=key)
    if definition.soap is not None and definition.type != "soap":
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "belongs to type soap", path="soap")
    if (check := _CHECK.get(definition.auth_type)) is not None:
        check(definition)
