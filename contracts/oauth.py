"""OAuth 2.0: how a provider is spoken to, as data, and what our workflows say to each other about tokens."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer, model_validator
from pydantic.fields import FieldInfo

from integration_service.contracts.names import Scope, Uuid
from integration_service.contracts.wire import AnswerModel, JsonObject, Timestamp, WireModel

GrantType = Literal["authorization_code", "client_credentials", "device_code", "jwt_bearer", "password"]
ClientAuthMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
SigningAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]

DEFAULT_MARGIN_MS = 300_000
"""How long before its expiry a token is refreshed, where a definition does not say."""

REFRESH_TOKEN = "RefreshToken"  # noqa: S105 - the name of an activity
START_REFRESH = "StartRefresh"
BEGIN_AUTHORIZATION = "BeginAuthorization"
COMPLETE_AUTHORIZATION = "CompleteAuthorization"
POLL_DEVICE = "PollDevice"
REVOKE_TOKENS = "RevokeTokens"

AuthScheme = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$")]
"""An HTTP authentication scheme (RFC 9110 §11.1)."""

JsonPath = Annotated[str, StringConstraints(pattern=r"^[^.\s]+(\.[^.\s]+)*$", max_length=255)]
"""Keys joined by dots, such as ``authed_user.access_token``; a number picks from an array."""


def state_hash(state: str) -> str:
    """How a state is kept, and named in messages: SHA-256, base64url without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(state.encode(errors="surrogatepass")).digest()).rstrip(b"=").decode()


class _Sparse(WireModel):
    """Leaves out what is as by default: a stored definition says what its author said."""

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        given = {
            field.alias for name, field in type(self).model_fields.items() if getattr(self, name) != _default(field)
        }
        return {key: value for key, value in handler(self).items() if key in given}


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


class TokenRequestMapping(_Sparse):
    """How a provider's token requests differ from RFC 6749.

    `rename` maps a standard parameter's name to the provider's (``client_id: client_key``). `refreshWith` says
    which token the refresh sends, under `refreshParameter`; `refreshGrantType` its ``grant_type``; `refreshMethod`
    stands for `method` there. `claims` are
    those of the assertion of grant ``jwt_bearer``; texts in `parameters`, `headers` and `claims` may hold
    ``{config.x}``.
    """

    method: Literal["POST", "GET"] = "POST"
    refresh_method: Literal["POST", "GET"] | None = None
    encoding: Literal["form", "json", "query"] = "form"
    parameters: dict[str, str] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)
    rename: dict[str, str] = Field(default_factory=dict)
    refresh_with: Literal["refresh_token", "access_token"] = "refresh_token"
    refresh_parameter: str | None = None
    refresh_grant_type: str = "refresh_token"
    claims: JsonObject = Field(default_factory=dict)
    algorithm: SigningAlgorithm = "RS256"
    audience: str | None = None


class TokenResponseMapping(_Sparse):
    """Where a provider's token answer holds what RFC 6749 §5.1 names, as paths into its JSON.

    `expiresIn` is read as seconds, or milliseconds where `expiresInUnit` says so; `expiresAt` as epoch seconds,
    epoch milliseconds or RFC 3339. `connection` fills ``{connection.x}``; a path that begins with ``callback.``
    looks into the callback's query instead. `account` tells one account from another. `invalidGrant` names more
    error codes that mean ``invalid_grant``.
    """

    access_token: JsonPath = "access_token"  # noqa: S105
    refresh_token: JsonPath = "refresh_token"  # noqa: S105
    token_type: JsonPath = "token_type"  # noqa: S105
    expires_in: JsonPath = "expires_in"
    expires_in_unit: Literal["s", "ms"] = "s"
    expires_at: JsonPath = "expires_at"
    default_expires_in_ms: int | None = Field(default=None, ge=1)
    scope: JsonPath = "scope"
    id_token: JsonPath = "id_token"  # noqa: S105
    error: JsonPath = "error"
    account: JsonPath | None = None
    connection: dict[str, JsonPath] = Field(default_factory=dict)
    invalid_grant: list[str] = Field(default_factory=list)


class TokenExpired(_Sparse):
    """What an upstream answers when the access token has expired, where it is not plainly 401.

    With `path`, the body's value there must be one of `values` as well.
    """

    status: list[int] = Field(default_factory=lambda: [401], min_length=1)
    path: JsonPath | None = None
    values: list[Any] = Field(default_factory=list)

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.path is None) != (not self.values):
            raise ValueError("path and values go together")
        return self


class OAuthClientRecord(WireModel):
    """A client's registration at a provider; it lives in the vault only.

    `privateKey` is a PEM or a JWK as text, for ``private_key_jwt`` and ``jwt_bearer``; `keyId` its ``kid``.
    """

    client_id: str = Field(min_length=1, repr=False)
    client_secret: str | None = Field(default=None, repr=False)
    private_key: str | None = Field(default=None, repr=False)
    key_id: str | None = None


# What the workflows and their activities say to each other; no secret stands in any of it


class TokenState(AnswerModel):
    """A connection's token as its workflows know it. Times are absolute; `obtainedAt` starts its life."""

    generation: int = Field(ge=0)
    expires_at: Timestamp | None = None
    obtained_at: Timestamp | None = None
    automatic: bool = True
    """Strategy ``auto``: refreshed by timer and when a call meets an expired token."""
    margin_ms: int = DEFAULT_MARGIN_MS
    granted_scope: str | None = None
    renewable: bool = True
    """Whether there is something to refresh with."""
    next_refresh_at: Timestamp | None = None
    """When `RefreshOAuth` means to refresh it; told by that workflow only."""


class RefreshInput(WireModel):
    """Starts `RefreshOAuth` under the id ``oauth-refresh:<instanceId>``."""

    instance_id: Uuid
    scope: Scope


class RefreshWanted(WireModel):
    """Update `refresh`: at once, or only if `seenGeneration` is still the current one."""

    seen_generation: int | None = Field(default=None, ge=0)


class RefreshAnswer(AnswerModel):
    """What `refresh` answers. With `retryAfterMs` no newer token could be had yet; ask again then."""

    generation: int
    expires_at: Timestamp | None = None
    retry_after_ms: int | None = None
    retry_at: Timestamp | None = None


class RefreshToken(AnswerModel):
    """Activity `RefreshToken`: one token request, if `generation` is still the current one."""

    instance_id: Uuid
    scope: Scope
    generation: int = Field(ge=0)


class CredentialChanged(WireModel):
    """Signal `credential_changed` to `RefreshOAuth`: what the vault holds now."""

    token: TokenState


class RefreshFailure(AnswerModel):
    """Why the token could not be refreshed; `final` where only a new authorization helps."""

    code: str
    message: str
    cause: str | None = None
    final: bool = False


class RefreshState(AnswerModel):
    """What one run of `RefreshOAuth` hands to the next."""

    token: TokenState
    due: Timestamp | None = None
    failure: RefreshFailure | None = None
    failures: int = Field(default=0, ge=0)
    not_before: Timestamp | None = None


class Authorize(WireModel):
    """Update `authorize`. `redirectUri` takes a loopback address only (RFC 8252 §7.3), for a terminal without a
    gateway; `allowDifferentAccount` lets another account than before take the instance over."""

    return_url: str | None = Field(default=None, max_length=2048)
    redirect_uri: str | None = Field(default=None, max_length=2048)
    allow_different_account: bool = False


class PendingAuthorization(AnswerModel):
    """An authorization that a person has still to give. `userCode` and `intervalMs` belong to the device flow."""

    authorization_url: str
    expires_at: Timestamp
    user_code: str | None = None
    interval_ms: int | None = None
    state_hash: str
    """SHA-256 of the state, base64url: what the row is found by."""


class ProviderError(WireModel):
    """The provider's refusal (RFC 6749 §4.1.2.1): its code only."""

    error: str = Field(pattern=r"^[\x20-\x21\x23-\x5b\x5d-\x7e]{1,100}$")
    iss: str | None = Field(default=None, max_length=2048)


class PollOutcome(AnswerModel):
    """What one poll of the device flow gave (RFC 8628 §3.5)."""

    done: bool = False
    slow_down: bool = False
    refused: str | None = None
