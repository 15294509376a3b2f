"""Two versions side by side: a call ends on the one it began on, connections move on with the current one."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.common import VersioningBehavior

from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.names import connection_workflow_id
from integration_service.devstack.environment import child_environment
from tests.acceptance.test_stopping import Slow
from tests.waiting import eventually
from tests.worker_process import queue_name, worker_process
from tests.world import World, definition_file

pytestmark = pytest.mark.slow
PINNED, AUTO_UPGRADE = VersioningBehavior.PINNED.value, VersioningBehavior.AUTO_UPGRADE.value
ROOT = Path(__file__).resolve().parents[2]


async def _set_current(world: World, deployment: str, build: str) -> None:
    """With the command of docs/operating.md, once Temporal knows the version."""
    command = f"worker deployment set-current-version --deployment-name {deployment} --build-id {build} --yes"
    assert command.replace(deployment, "integrations").replace(f"build-id {build}", 'build-id "$BUILD"') in (
        (ROOT / "docs" / "operating.md").read_text()
    )

    async def told() -> bool:
        process = await asyncio.create_subprocess_exec(
            "temporal",
            *command.split(),
            env=child_environment({"TEMPORAL_ADDRESS": world.stack.ready.temporal}),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait() == 0

    await eventually(told)


async def _version(handle: WorkflowHandle[Any, Any]) -> tuple[int, str]:
    """How the workflow is versioned, and the build that did its last step."""
    found = (await handle.describe()).raw_description.workflow_execution_info.versioning_info
    return found.behavior, found.deployment_version.build_id


async def test_calls_are_pinned_and_connections_move_on(world: World, name: str) -> None:
    queue, deployment = queue_name(), f"d-{uuid.uuid4().hex[:8]}"
    integrations = Integrations(world.temporal, task_queue=queue)
    await world.publish(definition_file(name))
    instance_id = str(uuid.uuid4())

    call = MethodCall(instance_id=instance_id, method="get", params={"id": 1})
    async with worker_process(world.stack, queue, deployment=deployment, build_id="one") as first:
        await first.ready()
        await _set_current(world, deployment, "one")
        await integrations.connect(
            ConnectInstanceInput(
                instance_id=instance_id, definition=name, name=f"i {name}", config={"url": world.upstream.url}
            )
        )
        owner = world.temporal.get_workflow_handle(connection_workflow_id(instance_id))
        assert await _version(owner) == (AUTO_UPGRADE, "one")

        slow = world.upstream.handler = Slow()
        held = await integrations.start_call(call)
        await asyncio.wait_for(slow.arrived.wait(), 20)
        async with worker_process(world.stack, queue, deployment=deployment, build_id="two") as second:
            await second.ready()
            await _set_current(world, deployment, "two")
            later = await integrations.start_call(call)
            assert (await integrations.result_of(later)).data == {"id": 1}
            slow.go.set()
            assert (await integrations.result_of(held)).data == {"id": 1}
            assert await _version(held) == (PINNED, "one")
            assert await _version(later) == (PINNED, "two")
            # The next thing that it is told finds the connection on the new version.
            await integrations.connection(instance_id).test()

            async def moved() -> bool:
                return (await _version(owner))[1] == "two"

            await eventually(moved)
            await owner.terminate()
