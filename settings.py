"""One frozen settings value, read from the environment once, at a process's start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.service import GrpcCompression

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import TASK_QUEUE
from integration_service.contracts.oauth_urls import is_return_url

_PREFIX = "INTEGRATIONS_"
_LISTS = ("egress_allow", "return_urls", "gateway_tokens", "codec_origins", "trace_upstreams")
# What a Bearer header can carry (RFC 6750 §2.1), and too long to be guessed.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{32,}=*")
# As a browser writes it (RFC 6454 §6.2): it is compared as text.
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?", re.ASCII)

# What Temporal takes, and what a label or a tag of an image can be.
_DEPLOYMENT = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"
_BUILD_ID = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$"
_COUNT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


class TemporalConfig(ClientConnectConfig, total=False):
    """Arguments of `Client.connect`."""

    grpc_compression: GrpcCompression


def temporal_config(environment: Mapping[str, str] | None = None) -> TemporalConfig:
    """How to reach Temporal, from its own environment variables and profiles; without any, a local server.

    Uncompressed: gzip, the SDK's default, costs both ends more than these small messages save.
    """
    source = dict(os.environ if environment is None else environment)
    config = TemporalConfig(
        **ClientConfig.load_client_connect_config(override_env_vars=source), grpc_compression=GrpcCompression.NONE
    )
    config.setdefault("target_host", "localhost:7233")
    return config


class Settings(BaseModel):
    """What the service is told from outside; Temporal's own settings come by `temporalio.envconfig`.

    `database_url` is a libpq URL and `keyring` a path or an inline key set: both are secrets. `egress_allow` is a
    comma-separated list of CIDR ranges that outbound calls may reach although they are private. `return_urls` are the
    pages that a person may be sent to after an authorization (`allowed_return_url` says how they match).

    `gateway_tokens`, secrets too, are what callers fetch large results with: comma-separated, any of them will do.
    `results_keyring` is the key set that large results are encrypted under, for workers and the gateway: with one of
    its own, the gateway can open no credential. Without it they are under `keyring`, which the gateway then needs.

    `payload_encryption` encrypts what goes to Temporal, under `payload_keyring`, a key set of its own that every caller
    holds; with the key set alone what is encrypted can be read, and nothing is encrypted. The `codec_…` settings let
    the gateway decode for Temporal's Web UI and CLI: whose tokens it trusts, and which origins may ask from a browser.

    `web_ui_url` is where Temporal's Web UI is, for the gateway's front page to link to.

    `audit_retention` is how long rows of the execution log are kept, in days; they go by whole months.

    `worker_listen` is where a worker answers for its health and its metrics, nowhere by default. `worker_slots` is how
    many method calls it holds at once, `worker_grace` how many seconds it gives them when it is told to stop. A
    `build_id` makes it a versioned worker of `deployment`. `trace_upstreams` are the hosts that are sent `traceparent`.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    database_url: str = Field(default="", repr=False)
    keyring: str = Field(default="", repr=False)
    public_url: str = "http://127.0.0.1:8700"
    task_queue: str = Field(default=TASK_QUEUE, min_length=1)
    egress_allow: tuple[str, ...] = ()
    return_urls: tuple[str, ...] = ()
    web_ui_url: str = ""
    gateway_listen: str = "127.0.0.1:8700"
    gateway_tokens: tuple[str, ...] = Field(default=(), repr=False)
    results_keyring: str = Field(default="", repr=False)
    payload_encryption: bool = False
    payload_keyring: str = Field(default="", repr=False)
    codec_jwks: str = Field(default="", repr=False)
    codec_issuer: str = ""
    codec_audience: str = ""
    codec_origins: tuple[str, ...] = ()
    codec_local_ui: bool = False
    audit_retention: timedelta = timedelta(days=400)
    worker_listen: str = ""
    worker_slots: int = Field(default=100, ge=4, le=10_000)
    worker_grace: timedelta = timedelta(seconds=30)
    deployment: str = Field(default="integrations", pattern=_DEPLOYMENT)
    build_id: str = Field(default="", pattern=_BUILD_ID)
    log_format: Literal["text", "json"] = "text"
    trace_upstreams: tuple[str, ...] = ()

    @field_validator("audit_retention", mode="before")
    @classmethod
    def _days(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        if not _COUNT.fullmatch(given):
            raise ValueError("must be a number of days, at least 1")
        return timedelta(days=int(given))

    @field_validator("web_ui_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        if url and not is_return_url(url):
            raise ValueError("is not a plain http(s) URL")
        return url

    @field_validator("worker_grace", mode="before")
    @classmethod
    def _seconds(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        if not _COUNT.fullmatch(given):
            raise ValueError("must be a number of seconds, at least 1")
        return timedelta(seconds=int(given))

    @field_validator("gateway_tokens")
    @classmethod
    def _long_tokens(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        for number, token in enumerate(tokens, 1):
            if not _TOKEN.fullmatch(token):
                raise ValueError(f"entry {number} is no token: at least 32 of the letters A-Z a-z 0-9 . _ ~ + / -")
        return tokens

    @field_validator("codec_origins")
    @classmethod
    def _exact_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for number, origin in enumerate(origins, 1):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"entry {number} is no origin: https://host or https://host:port, in lower case")
        return origins

    @field_validator("return_urls")
    @classmethod
    def _plain_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for number, url in enumerate(urls, 1):
            if not is_return_url(url):
                raise ValueError(f"entry {number} is not a plain http(s) URL")
        return urls

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the ``INTEGRATIONS_*`` variables. Raises IntegrationError naming the variable that is wrong."""
        source = os.environ if environment is None else environment
        given: dict[str, object] = {
            name: source[_PREFIX + name.upper()] for name in cls.model_fields if source.get(_PREFIX + name.upper())
        }
        for name in _LISTS:
            if isinstance(text := given.get(name), str):
                given[name] = tuple(part.strip() for part in text.split(",") if part.strip())
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            variable = _PREFIX + str(first["loc"][0]).upper()
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, first["msg"], path=variable) from None

    def results_key_source(self) -> str:
        """The key set of large results, as `Keyring.load` reads it. Raises IntegrationError where there is none."""
        return self.results_keyring or self.require("keyring")

    def payload_key_source(self) -> str | None:
        """The key set of payloads, as `open_keyring` reads it; None where payloads are neither encrypted nor opened.

        There is no falling back to `keyring`: every caller holds this one. Raises IntegrationError where encryption
        is on and there is none, or where it is the keyring of credentials.
        """
        if self.payload_encryption:
            self.require("payload_keyring")
        if self.payload_keyring and self.payload_keyring in (self.keyring, self.results_keyring):
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                "must be a key set of its own: every caller holds it",
                path="INTEGRATIONS_PAYLOAD_KEYRING",
            )
        return self.payload_keyring or None

    def require(self, name: str) -> str:
        """A setting that this process cannot do without. Raises IntegrationError naming its variable."""
        value: str = getattr(self, name)
        if not value:
            variable = _PREFIX + name.upper()
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"{variable} is not set", path=variable)
        return value
