"""Instances: one customer's connection, and the messages of the workflow that owns it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import Field

from integration_service.contracts.credentials import Sealed
from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.names import DEFAULT_SCOPE, DefinitionName, InstanceName, Scope, SemVer, Uuid
from integration_service.contracts.oauth import TokenState
from integration_service.contracts.wire import AnswerModel, JsonObject, Timestamp, WireModel


class IntegrationInstanceStatus(StrEnum):
    """Where a connection stands."""

    PENDING_CONFIGURATION = "PENDING_CONFIGURATION"
    PENDING_AUTHENTICATION = "PENDING_AUTHENTICATION"
    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    AUTH_ERROR = "AUTH_ERROR"
    CONFIG_ERROR = "CONFIG_ERROR"


class InstanceError(AnswerModel):
    """What is wrong with an instance, in words that tell what to do."""

    message: str
    code: str
    details: Any | None = None

    @classmethod
    def of(cls, error: IntegrationError, *, advice: str | None = None) -> Self:
        """A failure as an instance shows it: where and why, then what to do."""
        where = f" ({error.path})" if error.path else ""
        todo = f"; {advice}" if advice else ""
        return cls(message=f"{error.message}{where}{todo}", code=error.code, details=error.details or None)


class IntegrationInstance(AnswerModel):
    """A customer's connection to one definition (data model `IntegrationInstance`)."""

    id: Uuid
    integration_definition_id: Uuid
    name: InstanceName
    config: JsonObject
    status: IntegrationInstanceStatus
    error: InstanceError | None = None
    created_at: Timestamp
    updated_at: Timestamp
    last_used_at: Timestamp | None = None
    last_connected_at: Timestamp | None = None
    scope: Scope = DEFAULT_SCOPE
    definition: DefinitionName
    definition_version: SemVer
    auth_type: IntegrationAuthType
    version: int
    """Counts the row's writes (optimistic concurrency); every write names the version that it read."""


class ConnectInstanceInput(WireModel):
    """Starts `ConnectInstance` under the id ``connection:<instanceId>``."""

    instance_id: Uuid
    scope: Scope = DEFAULT_SCOPE
    definition: DefinitionName
    version: SemVer | None = None
    name: InstanceName
    config: JsonObject | None = None


class Configure(WireModel):
    """Update `configure`: replaces the instance's config."""

    config: JsonObject


class SubmitCredentials(WireModel):
    """Update `submit_credentials`."""

    sealed: Sealed


class Upgrade(WireModel):
    """Update `upgrade`: pins the instance to another published version of its definition."""

    version: SemVer


class Disconnect(WireModel):
    """Update `disconnect`. `revoke` asks the provider to revoke too, where it can."""

    revoke: bool = True


class Nothing(WireModel):
    """Updates `test`, `reconnect` and `delete` take an empty object."""


REFRESHED = "REFRESHED"


class Observed(WireModel):
    """Signal `observed`: what a call or a refresh met while using the credential of that generation."""

    generation: int = Field(ge=0)
    code: str
    cause: str | None = None
    token: TokenState | None = None
    """What a refresh brought (`REFRESHED`)."""


class BreakerNews(WireModel):
    """Signal `breaker_changed`: an upstream's circuit breaker opened, or closed when there is no `openUntil`.

    `failures` of `sends` in 30 s are its evidence.
    """

    host: str = Field(max_length=300)
    failures: int = Field(ge=0)
    sends: int = Field(ge=0)
    open_until: Timestamp | None = None
