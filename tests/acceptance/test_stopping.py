"""A worker that is told to stop: what it holds is finished, or done elsewhere as its guarantee says."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import JsonObject
from tests.waiting import eventually
from tests.worker_process import queue_name, worker_process
from tests.world import World, definition_file, method

pytestmark = pytest.mark.slow


class Slow:
    """Answers the first request when it is told to, all others at once."""

    def __init__(self) -> None:
        self.arrived, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, _: Request) -> Response:
        if not self.arrived.is_set():
            self.arrived.set()
            await self.go.wait()
        return JSONResponse({"id": 1})


async def _held(world: World, instance: JsonObject, name: str, queue: str) -> tuple[Slow, asyncio.Task[object]]:
    """A call that a worker of that queue holds, at the upstream."""
    slow = world.upstream.handler = Slow()
    wanted = MethodCall(instance_id=instance["id"], method=name, params={"id": 1})
    call = asyncio.create_task(Integrations(world.temporal, task_queue=queue).call(wanted))
    await asyncio.wait_for(slow.arrived.wait(), 20)
    return slow, call


async def test_a_call_that_is_held_is_finished_and_the_process_ends_well(world: World, name: str) -> None:
    instance, queue = await world.instance(definition_file(name)), queue_name()
    async with worker_process(world.stack, queue) as worker:
        await worker.ready()
        slow, call = await _held(world, instance, "get", queue)
        worker.tell()

        async def not_ready() -> bool:
            return (await worker.get("/readyz")).status_code == 503

        # It takes no more, and is alive.
        await eventually(not_ready)
        assert (await worker.get("/healthz")).status_code == 200
        slow.go.set()
        assert await worker.code() == 0, worker.log.read_text()
    assert [row["status"] for row in await world.audit(instance)] == ["SUCCEEDED"]
    # Whoever comes next tells the caller what is known by then.
    async with worker_process(world.stack, queue):
        assert (await asyncio.wait_for(call, 30)).data == {"id": 1}  # type: ignore[attr-defined]
    assert len(world.upstream.seen) == 1
    assert [row["status"] for row in await world.audit(instance)] == ["SUCCEEDED"]


async def test_over_its_grace_a_safe_call_is_done_elsewhere_and_another_is_not_sent_twice(
    world: World, name: str
) -> None:
    # No retries at all: a worker that is stopped is no failure of the call.
    unsafe = method("post", "POST", "/things", retryConfig=NO_RETRY)
    safe = method("get", "GET", "/things/{id}", retryConfig=NO_RETRY)
    instance, queue = await world.instance(definition_file(name, methods=[safe, unsafe])), queue_name()
    async with worker_process(world.stack, queue, worker_grace="1") as first:
        await first.ready()
        _, safe_call = await _held(world, instance, "get", queue)
        _, unsafe_call = await _held(world, instance, "post", queue)
        async with worker_process(world.stack, queue) as second:
            first.tell()
            assert await first.code() == 0, first.log.read_text()
            await second.ready()
            assert (await safe_call).data == {"id": 1}  # type: ignore[attr-defined]
            with pytest.raises(IntegrationError) as lost:
                await unsafe_call
    assert lost.value.code == "OUTCOME_UNKNOWN"
    sent = [(seen.method, seen.path) for seen in world.upstream.seen]
    assert sorted(sent) == [("GET", "/things/1"), ("GET", "/things/1"), ("POST", "/things")]


async def test_a_second_signal_ends_it_at_once(world: World, name: str) -> None:
    instance, queue = await world.instance(definition_file(name)), queue_name()
    async with worker_process(world.stack, queue, worker_grace="300") as first:
        await first.ready()
        _, call = await _held(world, instance, "get", queue)
        async with worker_process(world.stack, queue) as second:
            await second.ready()
            first.tell()

            async def told_again() -> bool:
                # One that comes with the first is the first again; only a later one counts.
                if first.process.returncode is None:
                    first.tell()
                return first.process.returncode is not None

            await eventually(told_again)
            assert await first.code() == 1
            assert (await asyncio.wait_for(call, 60)).data == {"id": 1}  # type: ignore[attr-defined]
    assert len(world.upstream.seen) == 2


NO_RETRY = {"maxRetries": 0, "backoffMultiplier": 2, "initialDelayMs": 100, "maxDelayMs": 1000}
