"""A rate limit over many workers: the upstream counts what it allows, and one tenant's queue is no other's."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.wire import JsonObject
from tests.soak.conftest import Measured
from tests.soak.workers import Workers
from tests.waiting import eventually
from tests.world import World, definition_file, method

pytestmark = pytest.mark.slow

_PER_MINUTE, _BURST = 600, 10
_PER_SECOND = _PER_MINUTE / 60
_ALL_CAME_S = 3


@dataclass
class CountingUpstream:
    """Notes when each path's requests came."""

    at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def __call__(self, request: Request) -> Response:
        self.at[request.url.path].append(time.monotonic())
        return JSONResponse({})


def most_beyond_the_rate(times: list[float]) -> float:
    """By how much the fullest of all windows holds more than the rate's share of it."""
    most, lowest = 0.0, float("inf")
    for index, at in enumerate(times):
        lowest = min(lowest, index - _PER_SECOND * at)
        most = max(most, index + 1 - _PER_SECOND * at - lowest)
    return most


def limited_definition(name: str) -> JsonObject:
    limits = {"requestsPerMinute": _PER_MINUTE, "burstLimit": _BURST}
    return definition_file(name, methods=[method("get", "GET", "/{tenant}", rateLimits=limits)])


async def test_a_limit_holds_over_all_workers_and_an_idle_tenant_is_served_at_once(
    world: World, workers: Workers, name: str, full: bool, measured: Measured
) -> None:
    processes, queued, span = (4, 5000, 60) if full else (2, 500, 10)
    upstream = world.upstream.handler = CountingUpstream()
    busy, idle = await world.instance(limited_definition(name)), await world.connect(name)

    async with workers.joined_by(processes - 1):

        async def all_run() -> bool:
            return len(workers.running()) >= processes

        await eventually(all_run, within_s=120)
        await world.call(idle, "get", {"tenant": "warm"})
        await _queued(world, busy, queued)
        times = upstream.at["/busy"]
        # Each has its place: the burst has passed, from here on it is the rate alone.
        await _placed(world, busy)
        waits = []
        began = time.monotonic()
        while time.monotonic() - began < span:
            waits.append(await _served(world, idle))
            await asyncio.sleep(span / 20)
        within = [at for at in times if began <= at < began + span]
        # While thousands are started the upstream, which shares their process, is late to look at its clock.
        beyond, at_all = most_beyond_the_rate(sorted(within)), most_beyond_the_rate(sorted(times))

        async def all_known() -> bool:
            """Whether none is missing: each waits or is done. Where they are few, all of them are done."""
            done = await _in_status(world, busy, "Completed")
            return queued == done + (await _in_status(world, busy, "Running") if full else 0)

        await eventually(all_known, within_s=120)
    assert len(within) == pytest.approx(_PER_SECOND * span, rel=0.02 if full else 0.1)
    assert beyond <= _BURST + 1
    assert max(waits) < 1
    measured(
        f"{processes} workers, {_PER_MINUTE} a minute, burst {_BURST}, {queued} queued: {len(within)} in {span} s, "
        f"at most {beyond:.1f} beyond the rate ({at_all:.1f} while they were started); "
        f"an idle tenant's calls took {min(waits):.2f} to {max(waits):.2f} s"
    )


async def _queued(world: World, instance: JsonObject, count: int) -> None:
    """So many calls of one tenant, all started. None is waited for: thousands of long polls would be refused."""
    turn = asyncio.Semaphore(50)
    call = {"instanceId": instance["id"], "method": "get", "params": {"tenant": "busy"}}

    async def start(number: int) -> None:
        async with turn:
            await world.temporal.start_workflow(
                "ExecuteMethod", call, id=f"rate-{instance['id']}-{number}", task_queue="integrations"
            )

    async with asyncio.TaskGroup() as starting:
        for number in range(count):
            starting.create_task(start(number))


async def _in_status(world: World, instance: JsonObject, *statuses: str) -> int:
    """How many of the tenant's calls Temporal knows to be in one of these."""
    wanted = ", ".join(f"'{status}'" for status in statuses)
    found = await world.temporal.count_workflows(
        f"WorkflowId STARTS_WITH 'rate-{instance['id']}-' AND ExecutionStatus IN ({wanted})"
    )
    return found.count


async def _placed(world: World, instance: JsonObject) -> None:
    """Until each call has its place: only who comes for the first time moves `empty_at` on."""
    seen: list[tuple[datetime, float]] = []

    async def look() -> bool:
        row = await world.database.one(
            "SELECT empty_at FROM integrations.rate_buckets WHERE instance_id = %(id)s", {"id": instance["id"]}
        )
        if row is not None and (not seen or seen[-1][0] != row["empty_at"]):
            seen.append((row["empty_at"], time.monotonic()))
        return bool(seen) and time.monotonic() - seen[-1][1] > _ALL_CAME_S

    await eventually(look, within_s=240)


async def _served(world: World, instance: JsonObject) -> float:
    began = time.monotonic()
    await world.call(instance, "get", {"tenant": "idle"})
    return time.monotonic() - began
