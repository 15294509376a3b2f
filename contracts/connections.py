"""What `ConnectInstance` and its activities say to each other."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from integration_service.contracts.credentials import Sealed
from integration_service.contracts.instances import (
    BreakerNews,
    InstanceError,
    IntegrationInstance,
    IntegrationInstanceStatus,
)
from integration_service.contracts.names import Scope, SemVer, Uuid
from integration_service.contracts.oauth import (
    Authorize,
    GrantType,
    PendingAuthorization,
    ProviderError,
    TokenState,
)
from integration_service.contracts.wire import AnswerModel, JsonObject, WireModel

OPEN_CONNECTION = "OpenConnection"
LOAD_CONNECTION = "LoadConnection"
WRITE_CONNECTION = "WriteConnection"
PIN_VERSION = "PinVersion"
STORE_CREDENTIAL = "StoreCredential"
ERASE_CREDENTIAL = "EraseCredential"
TEST_CONNECTION = "TestConnection"
DELETE_INSTANCE = "DeleteInstance"
WAKE_WAITERS = "WakeWaiters"


class ConnectionState(AnswerModel):
    """An instance as its row stands, with what its workflow decides by.

    `generation` is 0 without a credential. `configProblem` tells what `configSchema` finds wrong; `unconfigured`
    says that only required values are missing, because no config was given yet.
    """

    instance: IntegrationInstance
    generation: int = Field(ge=0)
    config_problem: InstanceError | None = None
    unconfigured: bool = False
    grant: GrantType | None = None
    """How an OAuth definition's tokens are had; None for the other kinds."""
    token: TokenState | None = None
    missing_scope: list[str] = Field(default_factory=list)
    """What was asked for and not granted."""


class ConnectionRef(AnswerModel):
    """Names an instance."""

    instance_id: Uuid
    scope: Scope


class WriteConnection(AnswerModel):
    """A write of the instance's row, made from `instance` as it was read."""

    instance: IntegrationInstance
    status: IntegrationInstanceStatus
    error: InstanceError | None = None
    config: JsonObject
    definition_id: Uuid


class PinVersion(AnswerModel):
    """Asks for another published version of the instance's definition."""

    instance: IntegrationInstance
    version: SemVer


class PinnedVersion(AnswerModel):
    """The definition of that version. `sameAuth` says that credentials of the old one fit it."""

    definition_id: Uuid
    same_auth: bool


class StoreCredential(AnswerModel):
    """A sealed credential for an instance."""

    instance: IntegrationInstance
    sealed: Sealed


class BeginAuthorization(AnswerModel):
    """Asks for an authorization URL, or for a device code."""

    instance: IntegrationInstance
    wanted: Authorize


class CompleteAuthorization(WireModel):
    """Update `complete_authorization`: what came back with the person. One of `sealed` and `error`, and the state
    or its hash. Inside the seal: ``{"code", "iss"?, "callback"?: {name: text}}``."""

    state: str | None = Field(default=None, min_length=1, max_length=512, repr=False)
    state_hash: str | None = Field(default=None, min_length=1, max_length=128)
    sealed: Sealed | None = None
    error: ProviderError | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.state is None) == (self.state_hash is None):
            raise ValueError("takes either state or stateHash")
        if (self.sealed is None) == (self.error is None):
            raise ValueError("takes either sealed or error")
        return self


class ReturnedAuthorization(AnswerModel):
    """The same, for the activity that spends the code."""

    instance: IntegrationInstance
    state_hash: str
    sealed: Sealed | None = None
    error: ProviderError | None = None


class PollDevice(AnswerModel):
    """One poll of the device flow."""

    instance: IntegrationInstance
    state_hash: str


class ConnectionCarried(AnswerModel):
    """What one run of `ConnectInstance` hands to the next."""

    connection: ConnectionState
    pending: PendingAuthorization | None = None
    """An authorization that is under way."""
    interval_ms: int = Field(default=5_000, ge=0)
    """The device flow's pace, slowed down as the provider asked."""
    requests_failed: int = Field(default=0, ge=0)
    """Requests for a machine's first token so far."""
    breakers: list[BreakerNews] = Field(default_factory=list)
    """The upstreams that are not called for now."""


class ConnectionTest(AnswerModel):
    """Asks for `connectionTest`; with `renew` a refused token is renewed once, and tried once more."""

    instance_id: Uuid
    scope: Scope
    renew: bool = False


class StartRefresh(AnswerModel):
    """Makes sure that `RefreshOAuth` runs and knows the token."""

    instance_id: Uuid
    scope: Scope
    token: TokenState
    definition: str | None = None
    """For the search attribute of the workflow that is started."""


class TestOutcome(AnswerModel):
    """What `connectionTest` showed; `tested` is False where a definition has none."""

    __test__ = False  # no test case, whatever pytest makes of the name

    tested: bool
