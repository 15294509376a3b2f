"""Stands in for our activities where a test is about the workflows alone."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from temporalio import activity

from integration_service.contracts import connections as names
from integration_service.contracts.connections import (
    BeginAuthorization,
    ConnectionRef,
    ConnectionState,
    PollDevice,
    WriteConnection,
)
from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.instances import (
    ConnectInstanceInput,
    IntegrationInstance,
    IntegrationInstanceStatus,
)
from integration_service.contracts.oauth import BEGIN_AUTHORIZATION, POLL_DEVICE, PendingAuthorization, PollOutcome
from tests.call_stand_in import CallStandIn


class Service(CallStandIn):
    """Beside a call, one instance with a device flow."""

    def __init__(self) -> None:
        super().__init__()
        self.polls: list[datetime] = []
        self.refuses_after = 0
        self.row: IntegrationInstance | None = None

    @activity.defn(name=names.OPEN_CONNECTION)
    async def open(self, wanted: ConnectInstanceInput) -> ConnectionState:
        now = activity.info().started_time
        self.row = IntegrationInstance(
            id=wanted.instance_id,
            integration_definition_id=str(uuid.uuid4()),
            name=wanted.name,
            config={},
            status=IntegrationInstanceStatus.PENDING_AUTHENTICATION,
            created_at=now,
            updated_at=now,
            definition="things",
            definition_version="1.0.0",
            auth_type=IntegrationAuthType.OAUTH2,
            version=1,
        )
        return ConnectionState(instance=self.row, generation=0, grant="device_code")

    @activity.defn(name=names.WRITE_CONNECTION)
    async def write(self, wanted: WriteConnection) -> ConnectionState:
        row = wanted.instance.model_copy(update={"status": wanted.status, "error": wanted.error})
        return ConnectionState(instance=row, generation=0, grant="device_code")

    @activity.defn(name=names.DELETE_INSTANCE)
    async def delete(self, ref: ConnectionRef) -> None:
        return None

    @activity.defn(name=BEGIN_AUTHORIZATION)
    async def begin(self, begun: BeginAuthorization) -> PendingAuthorization:
        return PendingAuthorization(
            authorization_url="https://provider.example/type",
            expires_at=activity.info().started_time + timedelta(hours=1),
            user_code="AB-CD",
            interval_ms=5_000,
            state_hash="hashed",
        )

    @activity.defn(name=POLL_DEVICE)
    async def poll(self, polled: PollDevice) -> PollOutcome:
        self.polls.append(activity.info().started_time)
        if len(self.polls) == 1:
            return PollOutcome(slow_down=True)
        return PollOutcome(refused="access_denied" if len(self.polls) > self.refuses_after else None)
