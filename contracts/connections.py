"""What `ConnectInstance` and its activities say to each other."""

from __future__ import annotations

from pydantic import Field

from integration_service.contracts.credentials import Sealed
from integration_service.contracts.instances import InstanceError, IntegrationInstance, IntegrationInstanceStatus
from integration_service.contracts.names import Scope, SemVer, Uuid
from integration_service.contracts.wire import AnswerModel, JsonObject

OPEN_CONNECTION = "OpenConnection"
LOAD_CONNECTION = "LoadConnection"
WRITE_CONNECTION = "WriteConnection"
PIN_VERSION = "PinVersion"
STORE_CREDENTIAL = "StoreCredential"
ERASE_CREDENTIAL = "EraseCredential"
TEST_CONNECTION = "TestConnection"
DELETE_INSTANCE = "DeleteInstance"


class ConnectionState(AnswerModel):
    """An instance as its row stands, with what its workflow decides by.

    `generation` is 0 without a credential. `configProblem` tells what `configSchema` finds wrong; `unconfigured`
    says that only required values are missing, because no config was given yet.
    """

    instance: IntegrationInstance
    generation: int = Field(ge=0)
    config_problem: InstanceError | None = None
    unconfigured: bool = False


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


class TestOutcome(AnswerModel):
    """What `connectionTest` showed; `tested` is False where a definition has none."""

    __test__ = False  # no test case, whatever pytest makes of the name

    tested: bool
