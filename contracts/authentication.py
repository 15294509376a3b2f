"""How a definition says where its credential goes: `jwtConfig` and `customAuth`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from integration_service.contracts.oauth import SigningAlgorithm
from integration_service.contracts.wire import JsonObject, WireModel

DEFAULT_LIFETIME_MS = 300_000

HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")]
HeaderPrefix = Annotated[str, StringConstraints(pattern=r"^([!-~]([ -~]*[^A-Za-z0-9_.-])?)?$", max_length=255)]
"""Printable ASCII that ends with a separator, so that the token behind it can be told from it."""
ParameterName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=255)]

JwtAlgorithm = Literal["HS256", "HS384", "HS512", SigningAlgorithm]


class JwtConfig(WireModel):
    """Where a JSON Web Token goes and, with `algorithm`, how one is minted (RFC 7519).

    Texts in `claims` and `audience` may hold ``{config.x}``; ``iat``, ``exp`` and ``jti`` are added.
    """

    algorithm: JwtAlgorithm | None = None
    claims: JsonObject | None = None
    audience: str | None = None
    lifetime_ms: int | None = Field(default=None, ge=60_000, le=86_400_000)
    header: HeaderName | None = None
    prefix: HeaderPrefix | None = None

    @property
    def effective_lifetime_ms(self) -> int:
        return self.lifetime_ms or DEFAULT_LIFETIME_MS

    @property
    def effective_header(self) -> str:
        return self.header or "Authorization"

    @property
    def effective_prefix(self) -> str:
        return "Bearer " if self.prefix is None else self.prefix


class CustomAuth(WireModel):
    """Where the values of a custom credential go; texts may hold ``{credential.x}`` and ``{config.x}``."""

    headers: dict[HeaderName, str] | None = None
    query: dict[ParameterName, str] | None = None
    body: dict[ParameterName, str] | None = None
