"""Integration definitions: what an API is (data model, plus the keys that `docs/definitions.md` adds)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from integration_service.contracts.authentication import CustomAuth, HeaderName, JwtConfig
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import DEFAULT_SCOPE, DefinitionName, MethodName, Scope, SemVer, Uuid
from integration_service.contracts.oauth import (
    DEFAULT_MARGIN_MS,
    AuthScheme,
    ClientAuthMethod,
    GrantType,
    TokenExpired,
    TokenRequestMapping,
    TokenResponseMapping,
)
from integration_service.contracts.pagination import Pagination
from integration_service.contracts.retry import DEFAULT_RETRY, RetryConfig
from integration_service.contracts.soap import SoapConfig
from integration_service.contracts.wire import JsonObject, JsonSchema, Timestamp, WireModel

IntegrationType = Literal["http", "graphql", "soap"]
DEFAULT_TIMEOUT_MS = 30_000
MAX_TIMEOUT_MS = 3_600_000

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
"""One ``{name}`` in a path, header or base URL."""


class IntegrationAuthType(StrEnum):
    """How an API authenticates."""

    NONE = "none"
    BASIC = "basic"
    API_KEY = "api_key"
    OAUTH2 = "oauth2"
    JWT = "jwt"
    CUSTOM = "custom"


class IntegrationDefinitionStatus(StrEnum):
    """Where a definition stands in its life: DRAFT → PUBLISHED → DEPRECATED → ARCHIVED, no other moves."""

    DRAFT = "DRAFT"
    PUBLISHED = "PUBLISHED"
    DEPRECATED = "DEPRECATED"
    ARCHIVED = "ARCHIVED"

    def may_become(self, other: IntegrationDefinitionStatus) -> bool:
        """Whether the lifecycle has the step from this status to `other`."""
        order = list(IntegrationDefinitionStatus)
        return order.index(other) == order.index(self) + 1


class EnvSecret(WireModel):
    """A secret read from the environment of whoever applies the file: ``{"$env": NAME}``."""

    env: str = Field(alias="$env", min_length=1)


class FileSecret(WireModel):
    """A secret read from a file beside the definition: ``{"$file": PATH}``."""

    file: str = Field(alias="$file", min_length=1)


SecretSource = Annotated[str, Tag("<text>")] | Annotated[EnvSecret, Tag("<env>")] | Annotated[FileSecret, Tag("<file>")]


def _source_kind(value: Any) -> str:
    if isinstance(value, FileSecret) or (isinstance(value, dict) and "$file" in value):
        return "<file>"
    return "<env>" if isinstance(value, EnvSecret | dict) else "<text>"


Secret = Annotated[SecretSource, Discriminator(_source_kind)]


class RefreshTokenConfig(WireModel):
    """When an access token is refreshed."""

    strategy: Literal["auto", "manual"]
    time_before_expiry_ms: int | None = Field(default=None, ge=0)


class OAuth2Config(WireModel):
    """An OAuth 2.0 client's configuration (data model `OAuth2Config`).

    `clientId` and `clientSecret` seed the OAuth client record in the vault; a stored definition holds neither.
    """

    client_id: Secret | None = Field(default=None, repr=False)
    client_secret: Secret | None = Field(default=None, repr=False)
    authorization_url: str | None = None
    token_url: str | None = None
    scope: str | None = None
    additional_parameters: dict[str, str] | None = None
    refresh_token_config: RefreshTokenConfig | None = None
    grant_type: GrantType | None = None
    pkce: bool | None = None
    token_endpoint_auth_method: ClientAuthMethod | None = None
    scope_separator: str | None = None
    refresh_url: str | None = None
    revocation_url: str | None = None
    device_authorization_url: str | None = None
    issuer: str | None = None
    token_request: TokenRequestMapping | None = None
    token_response: TokenResponseMapping | None = None
    token_expired: TokenExpired | None = None
    authorization_scheme: AuthScheme | None = None
    """Stands before the access token in `Authorization`, where that is not ``Bearer``."""
    scope_aliases: dict[str, str] | None = None
    """A scope's name as it is asked for, and the other one under which the provider grants it."""
    private_key: Secret | None = Field(default=None, repr=False)
    key_id: str | None = None

    @property
    def grant(self) -> GrantType:
        return self.grant_type or "authorization_code"

    @property
    def automatic(self) -> bool:
        """Whether tokens are refreshed by timer and when a call meets an expired one."""
        return self.refresh_token_config is None or self.refresh_token_config.strategy == "auto"

    @property
    def margin_ms(self) -> int:
        """How long before its expiry a token is refreshed, at most."""
        if self.refresh_token_config is None or self.refresh_token_config.time_before_expiry_ms is None:
            return DEFAULT_MARGIN_MS
        return self.refresh_token_config.time_before_expiry_ms

    @property
    def needs_person(self) -> bool:
        """Whether somebody must say yes, or give a password, before there is a token."""
        return self.grant not in ("client_credentials", "jwt_bearer")


class RateLimits(WireModel):
    """How often one instance may call one method, over all workers.

    `burstLimit` (1 without it) may come at once; alone it is read as so many a second.
    """

    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    burst_limit: int | None = Field(default=None, ge=1, le=1_000_000)


class CacheConfig(WireModel):
    """How long a method's result may be served again."""

    ttl_ms: int = Field(ge=1)
    vary_by_instance: bool = True


class HttpRequest(WireModel):
    """How params become an HTTP request."""

    method: Literal["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"]
    path: str
    query: list[str] | None = None
    headers: dict[HeaderName, str] | None = None
    body: list[str] | str | None = None
    encoding: Literal["json", "form", "multipart", "text", "xml"] | None = None

    @field_validator("path")
    @classmethod
    def _rooted(cls, path: str) -> str:
        if not path.startswith("/") or re.search(r"[\s?#\\]", path):
            raise ValueError("must start with / and hold no spaces, query or fragment")
        return path

    @property
    def path_params(self) -> list[str]:
        """Names of the params that stand in the path."""
        return PLACEHOLDER.findall(self.path)


class GraphqlRequest(WireModel):
    """A GraphQL document; params are its variables."""

    document: str


class SoapRequest(WireModel):
    """A SOAP operation of the definition's WSDL."""

    operation: str
    service: str | None = None
    port: str | None = None


def _request_kind(value: Any) -> str:
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", {})
    return "<graphql>" if "document" in keys else "<soap>" if "operation" in keys else "<http>"


MethodRequest = Annotated[
    Annotated[HttpRequest, Tag("<http>")]
    | Annotated[GraphqlRequest, Tag("<graphql>")]
    | Annotated[SoapRequest, Tag("<soap>")],
    Discriminator(_request_kind),
]
_REQUEST_OF_TYPE: dict[str, type[WireModel]] = {
    "http": HttpRequest,
    "graphql": GraphqlRequest,
    "soap": SoapRequest,
}


class IntegrationMethod(WireModel):
    """One callable method (data model `IntegrationMethod`)."""

    name: MethodName
    description: str
    param_schema: JsonSchema
    result_schema: JsonSchema
    request_transform: str | None = None
    response_transform: str | None = None
    rate_limits: RateLimits | None = None
    timeout_ms: int | None = Field(default=None, ge=1, le=MAX_TIMEOUT_MS)
    retry_config: RetryConfig | None = None
    request: MethodRequest | None = None
    idempotent: bool | None = None
    idempotency_header: HeaderName | None = None
    cache: CacheConfig | None = None
    pagination: Pagination | None = None

    @property
    def effective_retry(self) -> RetryConfig:
        return self.retry_config or DEFAULT_RETRY

    @property
    def effective_timeout_ms(self) -> int:
        return self.timeout_ms or DEFAULT_TIMEOUT_MS

    def safe_to_repeat(self, *, by_nature: bool) -> bool:
        """Whether a request may be sent again when its outcome is unknown: idempotent, or keyed. `by_nature` is what
        its protocol says of it; the definition's own word goes before."""
        return (by_nature if self.idempotent is None else self.idempotent) or self.idempotency_header is not None


class DefinitionFile(WireModel):
    """A definition as its author writes it: without `id`, `status` and timestamps, which the store gives."""

    name: DefinitionName
    title: str | None = None
    scope: Scope = DEFAULT_SCOPE
    description: str
    version: SemVer
    type: IntegrationType
    auth_type: IntegrationAuthType
    base_url: str | None = None
    wsdl: str | None = None
    wsdl_documents: dict[str, str] | None = None
    soap: SoapConfig | None = None
    methods: list[IntegrationMethod]
    config_schema: JsonSchema
    oauth2_config: OAuth2Config | None = Field(default=None, alias="oauth2Config")
    jwt_config: JwtConfig | None = None
    custom_auth: CustomAuth | None = None
    default_config: JsonObject | None = None
    connection_test: MethodName | None = None
    error_message: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [method.name for method in self.methods]
        for index, method in enumerate(self.methods):
            if method.name in names[:index]:
                raise _wrong(f"methods[{index}].name", f"method {method.name} is defined twice")
            if method.request is not None and not isinstance(method.request, _REQUEST_OF_TYPE[self.type]):
                raise _wrong(f"methods[{index}].request", f"this request does not fit type {self.type}")
        if self.connection_test is not None and self.connection_test not in names:
            raise _wrong("connectionTest", "names no method of this definition")
        if self.auth_type is IntegrationAuthType.OAUTH2 and self.oauth2_config is None:
            raise _wrong("oauth2Config", "authType oauth2 needs it")
        return self

    def method(self, name: str) -> IntegrationMethod | None:
        """The method called `name`, or None."""
        return next((method for method in self.methods if method.name == name), None)

    def content(self) -> JsonObject:
        """What makes two definitions the same: the wire form without what the store adds and without secrets."""
        wire = {key: value for key, value in self.to_wire().items() if key in _CONTENT_KEYS}
        if "oauth2Config" in wire:
            wire["oauth2Config"] = {
                key: value for key, value in wire["oauth2Config"].items() if key not in _CLIENT_KEYS
            }
        return wire


_CLIENT_KEYS = ("clientId", "clientSecret", "privateKey", "keyId")
"""They seed the client record; a stored definition has none of them."""


def _wrong(path: str, message: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, message, path=path)


_CONTENT_KEYS = {field.alias for field in DefinitionFile.model_fields.values() if field.alias is not None}


class IntegrationDefinition(DefinitionFile):
    """A definition as it is stored (data model `IntegrationDefinition`)."""

    id: Uuid
    status: IntegrationDefinitionStatus
    created_at: Timestamp
    updated_at: Timestamp
    published_at: Timestamp | None = None
