"""Two versions side by side: a call ends on the one it began on, connections move on with the current one."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.names import connection_workflow_id
from tests.acceptance.test_stopping import Slow
from tests.deployments import AUTO_UPGRADE, PINNED, Deployment, version_of
from tests.waiting import eventually
from tests.worker_process import queue_name, worker_process
from tests.world import World, definition_file

pytestmark = pytest.mark.slow


async def test_calls_are_pinned_and_connections_move_on(world: World, name: str) -> None:
    queue, deployment = queue_name(), Deployment(world)
    integrations = Integrations(world.temporal, task_queue=queue)
    await world.publish(definition_file(name))
    instance_id = str(uuid.uuid4())

    call = MethodCall(instance_id=instance_id, method="get", params={"id": 1})
    async with worker_process(world.stack, queue, deployment=deployment.name, build_id="one") as first:
        await first.ready()
        await deployment.make_current("one")
        await integrations.connect(
            ConnectInstanceInput(
                instance_id=instance_id, definition=name, name=f"i {name}", config={"url": world.upstream.url}
            )
        )
        owner = world.temporal.get_workflow_handle(connection_workflow_id(instance_id))
        assert await version_of(owner) == (AUTO_UPGRADE, "one")

        slow = world.upstream.handler = Slow()
        held = await integrations.start_call(call)
        await asyncio.wait_for(slow.arrived.wait(), 20)
        async with worker_process(world.stack, queue, deployment=deployment.name, build_id="two") as second:
            await second.ready()
            await deployment.make_current("two")

            async def starts_there() -> bool:
                """Temporal tells its queues of a new current version in a moment, not at once."""
                later = await integrations.start_call(call)
                assert (await integrations.result_of(later)).data == {"id": 1}
                return await version_of(later) == (PINNED, "two")

            await eventually(starts_there)
            slow.go.set()
            assert (await integrations.result_of(held)).data == {"id": 1}
            assert await version_of(held) == (PINNED, "one")
            # The next thing that it is told finds the connection on the new version.
            await integrations.connection(instance_id).test()

            async def moved() -> bool:
                return (await version_of(owner))[1] == "two"

            await eventually(moved)
            await owner.terminate()
