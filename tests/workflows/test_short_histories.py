"""Workflows that wait for long hand on to a next run before their histories grow, and forget nothing."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowHandle, WorkflowHistory
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import ErrorCode, IntegrationError, from_failure
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.names import (
    CONNECT_INSTANCE,
    EXECUTE_METHOD,
    connection_workflow_id,
    control_queue,
    execution_key,
)
from integration_service.plugin import IntegrationPlugin, _passing_through
from integration_service.workflows.connect_instance import ConnectInstance
from integration_service.workflows.execute_method import ExecuteMethod
from tests.service_stand_in import Service
from tests.skipping import histories, skipping_server

pytestmark = pytest.mark.slow

_QUEUE = "stand-ins"
_STRIDE = timedelta(days=1)
_DAY_MS = 24 * 3600 * 1000


@pytest.fixture(scope="module")
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    async with skipping_server() as running:
        yield running


@asynccontextmanager
async def serving(environment: WorkflowEnvironment, service: Service) -> AsyncIterator[None]:
    runner = _passing_through(SandboxedWorkflowRunner())
    control = [service.open, service.write, service.delete, service.begin, service.poll]
    async with (
        Worker(
            environment.client,
            task_queue=_QUEUE,
            workflows=[ConnectInstance, ExecuteMethod],
            activities=service.activities,
            workflow_runner=runner,
        ),
        Worker(environment.client, task_queue=control_queue(_QUEUE), activities=control),
    ):
        yield


async def check(environment: WorkflowEnvironment, workflow_id: str) -> list[WorkflowHistory]:
    """Several runs, none of them long, and all of them replay."""
    runs = await histories(environment.client, workflow_id)
    assert len(runs) > 1
    assert max(len(run.events) for run in runs) < 2_000
    for run in runs:
        await Replayer(workflows=[], plugins=[IntegrationPlugin()]).replay_workflow(run)
    return runs


async def start_call(environment: WorkflowEnvironment, service: Service, **call: Any) -> WorkflowHandle[Any, Any]:
    given = MethodCall(instance_id=service.instance_id, method="get", **call)
    return await environment.client.start_workflow(
        EXECUTE_METHOD,
        given.to_wire(),
        id=f"call:{uuid.uuid4()}",
        task_queue=_QUEUE,
        memo={"order": "A-17"},
        result_type=dict,
    )


async def test_a_call_that_waits_for_weeks_goes_on_as_the_same_execution(environment: WorkflowEnvironment) -> None:
    service = Service()
    service.answer = IntegrationError(ErrorCode.REAUTH_REQUIRED, "instance i is AUTH_ERROR", path="instanceId")
    async with serving(environment, service):
        handle = await start_call(environment, service, on_auth_error="wait", deadline_ms=100 * _DAY_MS)
        for _ in range(20):
            await environment.sleep(_STRIDE)
        described = await handle.describe()
        assert await described.memo_value("order") == "A-17"
        assert described.raw_info.search_attributes.indexed_fields["IntegrationMethod"].data == b'"get"'
        assert len(service.continuations) == 1
        service.answer, service.connected = None, True
        await environment.client.get_workflow_handle(handle.id).signal("instance_connected")
        assert (await handle.result())["statusCode"] == 200
    expected = execution_key(environment.client.namespace, handle.id, str(handle.first_execution_run_id))
    assert {one.execution_key for one in service.continuations} == {expected}
    # Looks are for a signal that was lost: a second at first, at most an hour in the end.
    runs = await check(environment, handle.id)
    waits = [
        event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
        for run in runs
        for event in run.events
        if event.HasField("timer_started_event_attributes")
    ]
    assert waits[0] < timedelta(seconds=10)
    assert waits[-1] == timedelta(hours=1)
    assert waits == sorted(waits)


async def test_a_call_that_nobody_authorises_ends_at_its_deadline_with_the_failure_that_parked_it(
    environment: WorkflowEnvironment,
) -> None:
    service = Service()
    service.answer = IntegrationError(ErrorCode.REAUTH_REQUIRED, "it is revoked", details={"cause": "revoked"})
    async with serving(environment, service):
        began = await environment.get_current_time()
        handle = await start_call(
            environment, service, on_auth_error="wait", deadline_ms=100 * _DAY_MS, wait_timeout_ms=10 * _DAY_MS
        )
        for _ in range(11):
            await environment.sleep(_STRIDE)
        with pytest.raises(Exception) as failed:
            await handle.result()
    error = from_failure(failed.value.__cause__)
    assert error is not None
    assert (error.code, error.message, error.details) == ("REAUTH_REQUIRED", "it is revoked", {"cause": "revoked"})
    closed = (await handle.describe()).close_time
    assert closed is not None
    assert timedelta(days=10) <= closed - began < timedelta(days=10, minutes=1)
    await check(environment, handle.id)


async def test_a_call_that_is_throttled_for_hours_keeps_what_it_spent_and_its_deadline(
    environment: WorkflowEnvironment,
) -> None:
    service = Service()
    service.answer = IntegrationError(
        ErrorCode.RATE_LIMITED, "slower", details={"triesSpent": 2}, retry_after=timedelta(minutes=1)
    )
    async with serving(environment, service):
        began = await environment.get_current_time()
        handle = await start_call(environment, service, deadline_ms=_DAY_MS // 4)
        with pytest.raises(Exception) as failed:
            await handle.result()
    error = from_failure(failed.value.__cause__)
    assert error is not None
    assert error.code == ErrorCode.RATE_LIMITED
    closed = (await handle.describe()).close_time
    assert closed is not None
    assert timedelta(hours=5, minutes=58) < closed - began <= timedelta(hours=6, minutes=1)
    assert {one.tries_spent for one in service.continuations[1:]} == {2}
    await check(environment, handle.id)


async def test_a_device_that_is_polled_for_long_keeps_its_pace(environment: WorkflowEnvironment) -> None:
    service = Service()
    service.refuses_after = 250
    workflow_id = connection_workflow_id(service.instance_id)
    wanted = ConnectInstanceInput(instance_id=service.instance_id, definition="things", name="a device")
    async with serving(environment, service):
        handle = await environment.client.start_workflow(
            CONNECT_INSTANCE, wanted.to_wire(), id=workflow_id, task_queue=_QUEUE, memo={"order": "A-17"}
        )
        await handle.execute_update("authorize", {})
        await environment.sleep(timedelta(minutes=20))
        going_on = environment.client.get_workflow_handle(workflow_id)
        assert (await going_on.query("status"))["userCode"] == "AB-CD"
        await environment.sleep(timedelta(minutes=30))
        status = await going_on.query("status")
        assert status["error"]["details"] == {"error": "access_denied"}
        assert "userCode" not in status
        assert await (await going_on.describe()).memo_value("order") == "A-17"
        await going_on.execute_update("delete", {})
    assert len(service.polls) == 251
    gaps = [later - earlier for earlier, later in zip(service.polls, service.polls[1:], strict=False)]
    assert min(gaps) >= timedelta(seconds=10)
    await check(environment, workflow_id)
