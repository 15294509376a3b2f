"""Temporal's dev server: what it knew before a restart it knows after."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.worker import Worker

from integration_service.contracts.names import INTEGRATION_INSTANCE
from integration_service.devstack import temporal
from integration_service.devstack.claims import read_pid
from integration_service.devstack.data_dir import DataDir, open_data_dir
from integration_service.devstack.options import StackOptions, StackPorts
from integration_service.devstack.supervisor import Supervisor
from integration_service.devstack.waiting import answers_http, until

pytestmark = pytest.mark.slow

WITHIN = timedelta(seconds=60)


@workflow.defn(sandboxed=False)
class Waits:
    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)


@activity.defn
async def nothing() -> None:
    pass


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    data_dir = open_data_dir(tmp_path / "with space, 'quote' and ?#%41ü")
    data_dir.prepare_folders()
    return data_dir


@pytest.fixture
def ports(tmp_path: Path) -> StackPorts:
    return StackPorts.claim(StackOptions(tmp_path, 0, 0, 0, 0))


@asynccontextmanager
async def running(data_dir: DataDir, ports: StackPorts) -> AsyncIterator[tuple[Client, Supervisor]]:
    supervisor = Supervisor(data_dir)
    try:
        await supervisor.start(temporal.server(data_dir, ports))
        yield await supervisor.while_alive(temporal.connect(ports.temporal), WITHIN), supervisor
    finally:
        await supervisor.stop(temporal.NAME)


async def test_workflows_outlive_restarts_and_kill_9(data_dir: DataDir, ports: StackPorts) -> None:
    known = TypedSearchAttributes([SearchAttributePair(INTEGRATION_INSTANCE, "github-main")])
    async with running(data_dir, ports) as (client, _):
        handle = await client.start_workflow(
            "Waits", id=f"waits-{uuid.uuid4()}", task_queue="q", search_attributes=known
        )
    async with running(data_dir, ports) as (client, supervisor):
        description = await client.get_workflow_handle(handle.id).describe()
        assert description.status == WorkflowExecutionStatus.RUNNING
        assert description.typed_search_attributes[INTEGRATION_INSTANCE] == "github-main"

        supervisor.keep()
        pid = read_pid(data_dir.claim(temporal.NAME))
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

        async def is_back() -> bool:
            return read_pid(data_dir.claim(temporal.NAME)) not in {None, pid} and await answers_http(ports.ui, "/")

        async with asyncio.timeout(30):
            await until(is_back)
            client = await temporal.connect(ports.temporal)
        description = await client.get_workflow_handle(handle.id).describe()
        assert description.status == WorkflowExecutionStatus.RUNNING
    # All of its files are where they belong, whatever the path means to SQLite.
    assert data_dir.temporal_db.exists()
    assert [entry.name for entry in data_dir.path.parent.iterdir()] == [data_dir.path.name]
    assert data_dir.temporal_db.stat().st_mode & 0o7777 == 0o600


async def test_ui_and_http_api_answer_on_their_ports(data_dir: DataDir, ports: StackPorts) -> None:
    async with running(data_dir, ports) as (_, supervisor):
        ui = until(lambda: answers_http(ports.ui, "/"))
        await supervisor.while_alive(ui, WITHIN)
        api = until(lambda: answers_http(ports.temporal_http, "/api/v1/namespaces/default"))
        await supervisor.while_alive(api, WITHIN)
        assert not await answers_http(ports.temporal_http, "/api/v1/namespaces/none")
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", ports.ui).connect()


async def test_pollers_are_seen_by_kind(data_dir: DataDir, ports: StackPorts) -> None:
    flows, activities = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    async with running(data_dir, ports) as (client, _):
        assert not await temporal.has_pollers(client, "q", activities)
        async with Worker(client, task_queue="q", activities=[nothing]), asyncio.timeout(20):
            await until(lambda: temporal.has_pollers(client, "q", activities))
            assert not await temporal.has_pollers(client, "q", flows)
            async with Worker(client, task_queue="q", workflows=[Waits]):
                await until(lambda: temporal.has_pollers(client, "q", flows))
