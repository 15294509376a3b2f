"""A worker that is killed with -9 in the middle of a method loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.errors import IntegrationError
from tests.world import World, definition_file, method


class FirstHangs:
    """The first request is never answered; it tells when it is there."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()

    async def __call__(self, _: Request) -> Response:
        if not self.arrived.is_set():
            self.arrived.set()
            await asyncio.Event().wait()
        return JSONResponse({"id": 1})


def _worker(world: World) -> psutil.Process:
    keyring = world.stack.environment["INTEGRATIONS_KEYRING"]
    for process in psutil.process_iter():
        try:
            command, environment = process.cmdline(), process.environ()
            # The guard beside it names the module last, too.
            is_worker = command[-2:] == ["-m", "integration_service.worker"] and len(command) < 6
            if is_worker and environment.get("INTEGRATIONS_KEYRING") == keyring:
                return process
        except (psutil.Error, OSError):
            continue
    raise AssertionError("no worker runs")


async def _killed_in_flight(world: World, instance: dict[str, object], method: str) -> asyncio.Task[object]:
    handler = world.upstream.handler = FirstHangs()
    call = asyncio.create_task(world.call(instance, method, {"id": 1}))
    await asyncio.wait_for(handler.arrived.wait(), 20)
    _worker(world).kill()
    return call


async def test_a_safe_method_is_sent_again_and_gives_the_right_result(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    call = await _killed_in_flight(world, instance, "get")
    result = await asyncio.wait_for(call, 60)
    assert result.data == {"id": 1}  # type: ignore[attr-defined]
    assert len(world.upstream.seen) == 2
    assert [row["status"] for row in await world.audit(instance)] == ["SUCCEEDED"]


async def test_a_post_is_not_sent_again_and_its_outcome_is_unknown(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    call = await _killed_in_flight(world, instance, "post")
    with pytest.raises(IntegrationError) as caught:
        await asyncio.wait_for(call, 60)
    assert caught.value.code == "OUTCOME_UNKNOWN"
    assert len(world.upstream.seen) == 1


async def test_the_database_killed_in_flight_costs_no_second_send(world: World, name: str) -> None:
    """Once the upstream has answered, only the final write is tried again."""
    instance = await world.instance(definition_file(name))
    arrived, go = asyncio.Event(), asyncio.Event()

    async def wait_for_it(_: Request) -> Response:
        arrived.set()
        await go.wait()
        return JSONResponse({"id": 1})

    world.upstream.handler = wait_for_it
    call = asyncio.create_task(world.call(instance, "post", {"id": 1}))
    await asyncio.wait_for(arrived.wait(), 20)
    pid = int((Path(world.stack.ready.postgres_data) / "postmaster.pid").read_text().split()[0])
    psutil.Process(pid).kill()
    go.set()
    result = await asyncio.wait_for(call, 60)
    assert result.data == {"id": 1}
    assert len(world.upstream.seen) == 1

    async def rows() -> list[str]:
        return [row["status"] for row in await world.audit(instance)]

    assert await rows() == ["SUCCEEDED"]


@pytest.mark.slow
async def test_a_worker_that_dies_amid_a_connection_test_is_noticed_and_another_tests(world: World, name: str) -> None:
    """Within seconds: without heartbeats the connection would stand still for two minutes, and not be connected."""
    upstream = world.upstream.handler = FirstHangs()
    await world.publish(definition_file(name, connectionTest="get", methods=[method("get", "GET", "/things")]))
    connecting = asyncio.create_task(world.connect(name))
    await upstream.arrived.wait()
    _worker(world).kill()
    status = await asyncio.wait_for(connecting, 60)
    assert (status["status"], status.get("error")) == ("CONNECTED", None)
