"""A workflow's page says who it is in every run: Temporal's server drops the summary and details of the start."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from integration_service.contracts import connections, events, keys
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.connections import ConnectionRef, ConnectionState
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.names import (
    CONNECT_INSTANCE,
    EXECUTE_METHOD,
    REFRESH_OAUTH,
    connection_workflow_id,
    control_queue,
    refresh_workflow_id,
)
from integration_service.contracts.oauth import RefreshInput, TokenState
from integration_service.workflows import history
from integration_service.workflows.connect_instance import ConnectInstance
from integration_service.workflows.deliver_events import DeliverEvents
from integration_service.workflows.execute_method import ExecuteMethod
from integration_service.workflows.refresh_oauth import RefreshOAuth
from integration_service.workflows.rotate_keys import RotateKeysWorkflow
from tests.service_stand_in import Service
from tests.waiting import eventually

_START = {"static_summary": "what the start said", "static_details": "more of it"}


class Upkeep:
    """Stands in for the activities of the workflows that keep things in order: the first ten answer at once."""

    def __init__(self) -> None:
        self.done = 0

    async def _work(self) -> None:
        self.done += 1
        if self.done > 10:
            await asyncio.Event().wait()

    @activity.defn(name=events.DELIVER_DUE_EVENTS)
    async def deliver(self, wanted: events.DeliverEventsInput) -> events.ShiftReport:
        await self._work()
        return events.ShiftReport(delivered=7)

    @activity.defn(name=keys.LIST_WRAPPED)
    async def tables(self, to: keys.RotateKeys) -> keys.WrappedTables:
        return keys.WrappedTables(names=["vault.credentials", "vault.seal_keys"])

    @activity.defn(name=keys.REWRAP)
    async def rewrap(self, wanted: keys.Rewrap) -> keys.Rewrapped:
        await self._work()
        return keys.Rewrapped(rewrapped=5, after=["x"])

    @activity.defn(name=connections.LOAD_CONNECTION)
    async def load(self, ref: ConnectionRef) -> ConnectionState:
        service = Service()
        found = await service.open(
            ConnectInstanceInput(instance_id=ref.instance_id, definition="things", name="acme", scope=ref.scope)
        )
        return found.model_copy(update={"token": TokenState(generation=1)})


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda events: monkeypatch.setattr(history, "MAX_EVENTS", events)


@asynccontextmanager
async def _serving(client: Client, service: Service) -> AsyncIterator[str]:
    queue, upkeep = f"pages-{uuid.uuid4().hex[:8]}", Upkeep()
    control = [service.open, service.write, service.delete, service.begin, service.poll]
    runner = UnsandboxedWorkflowRunner()
    async with (
        Worker(
            client,
            task_queue=queue,
            workflows=[ConnectInstance, ExecuteMethod],
            activities=service.activities,
            workflow_runner=runner,
        ),
        Worker(
            client,
            task_queue=control_queue(queue),
            workflows=[DeliverEvents, RotateKeysWorkflow, RefreshOAuth],
            activities=[*control, upkeep.deliver, upkeep.tables, upkeep.rewrap, upkeep.load],
            workflow_runner=runner,
            graceful_shutdown_timeout=timedelta(0),
        ),
    ):
        yield queue


async def _page(client: Client, begun: WorkflowHandle[Any, Any], *, signal: tuple[str, Any] | None = None) -> str:
    """The page of a later run, once there is one. `signal` is sent until then: each makes the history longer."""

    async def handed_on() -> WorkflowHandle[Any, Any] | None:
        if signal is not None:
            await client.get_workflow_handle(begun.id).signal(*signal)
        described = await client.get_workflow_handle(begun.id).describe()
        return None if described.run_id == begun.first_execution_run_id else client.get_workflow_handle(begun.id)

    going_on = await eventually(handed_on)
    described = await going_on.describe()
    assert await described.static_summary() is None, "Temporal keeps it now: docs/decisions.md says it does not"
    assert await described.static_details() is None
    told = await going_on.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    await going_on.terminate()
    return str(told.current_details)


async def test_a_connections_page(temporal: Client, short: Callable[[int], None]) -> None:
    short(18)
    service = Service()
    wanted = ConnectInstanceInput(instance_id=service.instance_id, definition="things", name="acme", scope="eu")
    async with _serving(temporal, service) as queue:
        begun = await temporal.start_workflow(
            CONNECT_INSTANCE,
            wanted.to_wire(),
            id=connection_workflow_id(wanted.instance_id),
            task_queue=queue,
            **_START,
        )
        page = await _page(temporal, begun, signal=("observed", {"generation": 0, "code": "REFRESHED"}))
    assert page.startswith("## Waits for its credential: acme")
    assert f"Instance: `{wanted.instance_id}`" in page
    assert "Definition: `things 1.0.0`" in page


async def test_a_tokens_page(temporal: Client, short: Callable[[int], None]) -> None:
    short(14)
    wanted = RefreshInput(instance_id=str(uuid.uuid4()), scope="eu")
    async with _serving(temporal, Service()) as queue:
        begun = await temporal.start_workflow(
            REFRESH_OAUTH,
            wanted.to_wire(),
            id=refresh_workflow_id(wanted.instance_id),
            task_queue=control_queue(queue),
            **_START,
        )
        page = await _page(
            temporal, begun, signal=("credential_changed", {"token": TokenState(generation=2).to_wire()})
        )
    assert "## The token is kept fresh" in page
    assert f"Instance: `{wanted.instance_id}`, scope `eu`" in page


async def test_the_page_of_delivery(temporal: Client, short: Callable[[int], None]) -> None:
    short(30)
    async with _serving(temporal, Service()) as queue:
        begun = await temporal.start_workflow(
            events.DELIVER_EVENTS, id=f"deliver-{queue}", task_queue=control_queue(queue), **_START
        )
        page = await _page(temporal, begun)
    assert page.startswith("## Delivers events to those who subscribed")


async def test_the_page_of_a_rotation(temporal: Client, short: Callable[[int], None]) -> None:
    short(30)
    to = keys.RotateKeys(active=keys.KeyName(id="kek-1", version=2))
    async with _serving(temporal, Service()) as queue:
        begun = await temporal.start_workflow(
            keys.ROTATE_KEYS, to.to_wire(), id=f"rotate-{queue}", task_queue=control_queue(queue), **_START
        )
        page = await _page(temporal, begun)
    assert page.startswith("## Everything comes under key `kek-1:2`")
    assert "Rows wrapped anew: " in page
    assert "Now: at work on vault.credentials" in page


async def test_the_page_and_the_status_of_a_call_that_waits(temporal: Client, short: Callable[[int], None]) -> None:
    short(25)
    service = Service()
    service.answer = IntegrationError(ErrorCode.REAUTH_REQUIRED, "planted words", path="instanceId")
    call = MethodCall(instance_id="acme", method="get", on_auth_error="wait", correlation_id="c-17")
    async with _serving(temporal, service) as queue:
        begun = await temporal.start_workflow(
            EXECUTE_METHOD, call.to_wire(), id=f"call-{queue}", task_queue=queue, **_START
        )

        async def parked() -> dict[str, Any] | None:
            status: dict[str, Any] = await temporal.get_workflow_handle(begun.id).query("status")
            return status if status["state"] == "PARKED" else None

        before = await eventually(parked)
        going_on = temporal.get_workflow_handle(begun.id)

        async def parked_again() -> dict[str, Any] | None:
            await going_on.signal("instance_connected")  # each look makes the history longer
            handed_on = (await going_on.describe()).run_id != begun.first_execution_run_id
            return await parked() if handed_on else None

        after = await eventually(parked_again)
        page = await _page(temporal, begun)
    assert after == before
    assert before["definition"] == "things"
    assert "planted" not in page + str(before)
    assert page.startswith("## Waits for the instance to be authorised")
    assert f"Instance: `acme`, `{service.instance_id}`" in page
    assert "Method: `things.get`, definition version `1.0.0`" in page
    assert "Correlation id: `c-17`" in page
