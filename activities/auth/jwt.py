"""A JSON Web Token: one that was stored, or one minted for each request (RFC 7519, RFC 7515)."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

from integration_service.activities.auth.context import AuthContext
from integration_service.activities.auth.header import with_credential
from integration_service.activities.auth.template import credential_template, fill, texts_within
from integration_service.activities.oauth.assertions import sign
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.authentication import JwtConfig
from integration_service.contracts.credentials import CredentialPayload, JwtCredential
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject

_OURS = ("iat", "exp", "jti")
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+$", re.ASCII)


def apply(request: OutboundRequest, credential: CredentialPayload, context: AuthContext) -> OutboundRequest:
    """Adds the header. Raises IntegrationError AUTH_ERROR for an expired token or a key that cannot sign."""
    definition = context.definition
    config = (definition.jwt_config if definition else None) or JwtConfig()
    jwt = _jwt(credential)
    token = jwt.token if jwt.token is not None else _minted(jwt, config, context)
    if jwt.expires_at is not None and jwt.expires_at <= context.now:
        raise IntegrationError(ErrorCode.AUTH_ERROR, "the stored token has expired")
    return with_credential(request, config.effective_header, config.effective_prefix + token, what="the token")


def secrets(credential: CredentialPayload) -> tuple[str, ...]:
    """The token or the key."""
    jwt = _jwt(credential)
    return tuple(text for text in (jwt.token, jwt.private_key, jwt.secret) if text)


def sent_secrets(request: OutboundRequest) -> tuple[str, ...]:
    """The token that stands on a request: one that was minted is known from nowhere else."""
    values = (value for name, value in request.headers if name.lower() in request.secret_headers)
    return tuple(found[0] for value in values if (found := _COMPACT.search(value)))


def prove(credential: CredentialPayload, definition: DefinitionFile) -> None:
    """Whether the credential's key can sign what the definition mints; a stored token is taken as it is.

    Raises IntegrationError AUTH_ERROR.
    """
    jwt = _jwt(credential)
    if jwt.token is None:
        _sign({}, jwt, definition.jwt_config or JwtConfig())


def check(definition: DefinitionFile) -> None:
    """Whether `jwtConfig` can be minted from. Raises IntegrationError VALIDATION_ERROR with the path."""
    config = definition.jwt_config
    if config is None:
        return
    minting = (config.claims, config.audience, config.lifetime_ms)
    if config.algorithm is None and any(value is not None for value in minting):
        raise _wrong("jwtConfig.algorithm", "a token is minted with it: name one")
    claims = config.claims or {}
    for name in _OURS:
        if name in claims:
            raise _wrong(f"jwtConfig.claims.{name}", "is set when the token is minted")
    if config.audience is not None and "aud" in claims:
        raise _wrong("jwtConfig.claims.aud", "the audience stands twice")
    for path, text in texts_within(claims, at="jwtConfig.claims"):
        credential_template(text, at=path, roots=("config",))
    if config.audience is not None:
        credential_template(config.audience, at="jwtConfig.audience", roots=("config",))


def _minted(jwt: JwtCredential, config: JwtConfig, context: AuthContext) -> str:
    claims = _filled(config.claims or {}, "jwtConfig.claims", context.config)
    if config.audience is not None:
        template = credential_template(config.audience, at="jwtConfig.audience", roots=("config",))
        claims["aud"] = fill(template, config=context.config)
    issued = int(context.now.timestamp())
    lifetime = timedelta(milliseconds=config.effective_lifetime_ms)
    claims |= {"iat": issued, "exp": issued + int(lifetime.total_seconds()), "jti": str(uuid.uuid4())}
    return _sign(claims, jwt, config)


def _sign(claims: JsonObject, jwt: JwtCredential, config: JwtConfig) -> str:
    if config.algorithm is None:
        raise IntegrationError(
            ErrorCode.AUTH_ERROR, "the definition's jwtConfig names no algorithm to mint a token with"
        )
    # A public key's text is no HMAC secret, and a password no private key: which is which was said on submission.
    symmetric = config.algorithm.startswith("HS")
    key_text = jwt.secret if symmetric else jwt.private_key
    if key_text is None:
        raise IntegrationError(
            ErrorCode.AUTH_ERROR,
            f"{config.algorithm} signs with a {'secret' if symmetric else 'private key'}; the credential has none",
        )
    try:
        return sign(claims, key_text=key_text, key_id=jwt.key_id, algorithm=config.algorithm)
    except IntegrationError:
        raise IntegrationError(
            ErrorCode.AUTH_ERROR, f"the credential's key cannot sign with {config.algorithm}"
        ) from None


def _filled(value: Any, path: str, config: JsonObject) -> Any:
    match value:
        case str():
            return fill(credential_template(value, at=path, roots=("config",)), config=config)
        case dict():
            return {key: _filled(inner, f"{path}.{key}", config) for key, inner in value.items()}
        case list():
            return [_filled(inner, f"{path}[{index}]", config) for index, inner in enumerate(value)]
    return value


def _jwt(credential: CredentialPayload) -> JwtCredential:
    if credential.jwt is None:
        raise TypeError("not a jwt credential")
    return credential.jwt


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)
