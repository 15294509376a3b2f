"""Credentials: what is sealed on its way to us and encrypted at rest. Secrets never show in `repr`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import Uuid
from integration_service.contracts.wire import AnswerModel, JsonObject, Timestamp, WireModel, parse

SEAL_SUITE = "HPKE-X25519-HKDF-SHA256-AES-256-GCM"

Base64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=1_000_000)]
HeaderText = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]


class Sealed(WireModel):
    """The only form in which a secret travels: HPKE (RFC 9180, base mode), ``enc ‖ ciphertext`` in base64.

    `info` is ``integration-service/v1/`` + the instance's id, so a seal opens for one instance only.
    """

    key_id: str = Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")
    sealed: Base64


class SealKey(AnswerModel):
    """What `GET /v1/seal-key` answers: the raw 32 bytes of an X25519 public key, in base64."""

    key_id: str
    public_key: Base64
    suite: str = SEAL_SUITE


class BasicAuth(WireModel):
    """HTTP Basic (RFC 7617)."""

    username: str = Field(pattern=r"^[^:\x00-\x1f\x7f]*$", repr=False)
    password: HeaderText = Field(repr=False)


class ApiKey(WireModel):
    """A key sent in a header or a query parameter."""

    key: HeaderText = Field(min_length=1, repr=False)
    header_or_param: str = Field(min_length=1, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z\[\]-]+$")
    in_header: bool

    @model_validator(mode="after")
    def _fits_a_header(self) -> Self:
        if self.in_header and any(ord(letter) > 255 for letter in self.key):
            raise ValueError("a key that goes into a header must be made of Latin-1 characters")
        return self


class OAuth2Credential(WireModel):
    """Tokens (RFC 6749 §5.1)."""

    access_token: str = Field(repr=False)
    refresh_token: str | None = Field(default=None, repr=False)
    expires_at: Timestamp | None = None
    token_type: str = "Bearer"  # noqa: S105 - a token type, no secret
    scope: str | None = None
    raw_response: JsonObject | None = Field(default=None, repr=False)
    connection: JsonObject | None = Field(default=None, repr=False)
    """What the answer or the callback told, for ``{connection.x}``. Not in the data model."""
    account: str | None = Field(default=None, repr=False)
    """Tells one account from another. Not in the data model."""


class JwtCredential(WireModel):
    """A JSON Web Token (RFC 7519), or the key that one is minted with: exactly one of `token`, `privateKey`, `secret`.

    `privateKey` is a PEM or a JWK as text, `secret` the text of an HMAC key; `keyId` is the key's ``kid``.
    """

    token: HeaderText | None = Field(default=None, min_length=1, repr=False)
    expires_at: Timestamp | None = None
    private_key: str | None = Field(default=None, min_length=1, repr=False)
    secret: str | None = Field(default=None, min_length=1, repr=False)
    key_id: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _token_or_key(self) -> Self:
        if sum(value is not None for value in (self.token, self.private_key, self.secret)) != 1:
            raise ValueError("exactly one of token, privateKey and secret must be given")
        if self.token is not None and self.key_id is not None:
            raise ValueError("keyId belongs to a key, not to a token")
        if self.token is None and self.expires_at is not None:
            raise ValueError("expiresAt belongs to a token, not to a key")
        return self


class CredentialPayload(WireModel):
    """The secret part of an `IntegrationCredential`: its type and the one object of that type.

    Type oauth2 may carry `basicAuth` beside its tokens, or alone: grant ``password`` asks for them with it.
    """

    type: IntegrationAuthType
    basic_auth: BasicAuth | None = Field(default=None, repr=False)
    api_key: ApiKey | None = Field(default=None, repr=False)
    oauth2: OAuth2Credential | None = Field(default=None, repr=False)
    jwt: JwtCredential | None = Field(default=None, repr=False)
    custom: JsonObject | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _one_object_of_the_type(self) -> Self:
        given = {key for key, value in self._objects().items() if value is not None}
        if self.type is IntegrationAuthType.OAUTH2 and self.basic_auth is not None:
            given = given - {"basic"} | {"oauth2"}
        if given != {self.type.value}:
            raise ValueError(f"type {self.type.value} takes exactly the object {OBJECT_KEYS.get(self.type)}")
        return self

    def _objects(self) -> dict[str, Any]:
        return {
            "basic": self.basic_auth,
            "api_key": self.api_key,
            "oauth2": self.oauth2,
            "jwt": self.jwt,
            "custom": self.custom,
        }


OBJECT_KEYS: dict[IntegrationAuthType, str] = {
    IntegrationAuthType.BASIC: "basicAuth",
    IntegrationAuthType.API_KEY: "apiKey",
    IntegrationAuthType.OAUTH2: "oauth2",
    IntegrationAuthType.JWT: "jwt",
    IntegrationAuthType.CUSTOM: "custom",
}


class IntegrationCredential(CredentialPayload):
    """A credential as the data model shapes it. Decrypted only inside an activity; never a row or a result."""

    id: Uuid
    integration_instance_id: Uuid
    created_at: Timestamp
    updated_at: Timestamp
    generation: int = Field(ge=1)
    """Counts the credential's writes; a stale writer or a replayed row is told by it. Not in the data model."""


def parse_credential(plaintext: bytes) -> CredentialPayload:
    """Read what was sealed. Raises IntegrationError (VALIDATION_ERROR) that quotes no value."""
    try:
        data = json.loads(plaintext)
    except (ValueError, RecursionError):
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the sealed text is not JSON", path="sealed") from None
    return parse(CredentialPayload, data, at="sealed")
