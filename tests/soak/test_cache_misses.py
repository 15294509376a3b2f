"""The same miss by a thousand callers at once, over three workers: the upstream is asked once."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.calls import MethodResult
from integration_service.contracts.wire import JsonObject
from tests.soak.conftest import Measured
from tests.soak.workers import Workers
from tests.waiting import eventually
from tests.world import World, definition_file, method

pytestmark = pytest.mark.slow


@dataclass
class SlowUpstream:
    """Takes its time, and counts what it is asked for."""

    takes: float
    asked: Counter[str] = field(default_factory=Counter)

    async def __call__(self, request: Request) -> Response:
        self.asked[request.url.path] += 1
        await asyncio.sleep(self.takes)
        return JSONResponse({"path": request.url.path, "number": self.asked[request.url.path]})


def cached_definition(name: str) -> JsonObject:
    return definition_file(
        name, methods=[method("get", "GET", "/things/{id}", cache={"ttlMs": 600_000}, timeoutMs=30_000)]
    )


# Two seconds are longer than anybody waits inside an activity.
@pytest.mark.parametrize("takes", [0.1, 2.0])
async def test_concurrent_misses_are_one_call(
    world: World, workers: Workers, name: str, full: bool, measured: Measured, takes: float
) -> None:
    count = 1000 if full else 100
    upstream = world.upstream.handler = SlowUpstream(takes)
    instance = await world.instance(cached_definition(name))
    latencies: list[float] = []

    async def call(path: str) -> MethodResult:
        began = time.monotonic()
        result = await world.call(instance, "get", {"id": path})
        latencies.append(time.monotonic() - began)
        return result

    async with workers.joined_by(2):

        async def three_serve() -> bool:
            return len(workers.running()) >= 3 and len(await _serving(world, instance)) >= 3

        await eventually(three_serve, within_s=120)
        latencies.clear()
        results = await asyncio.gather(*(call("same") for _ in range(count)))
    assert upstream.asked["/things/same"] == 1
    assert {result.data["number"] for result in results} == {1}
    assert sum(not result.cached for result in results) == 1
    assert all(result.cache_age_ms is not None for result in results if result.cached)
    latencies.sort()
    measured(
        f"{count} misses of one key on 3 workers, the upstream takes {takes} s: 1 request; "
        f"p50 {statistics.median(latencies):.2f} s, p99 {latencies[len(latencies) * 99 // 100]:.2f} s"
    )


async def _serving(world: World, instance: JsonObject) -> set[str]:
    """The workers that run the instance's calls, told by the histories of some that pass the cache by."""
    handles = []
    for number in range(12):
        call = {"instanceId": instance["id"], "method": "get", "params": {"id": f"w{number}"}, "cache": "bypass"}
        handles.append(
            await world.temporal.start_workflow(
                "ExecuteMethod", call, id=f"serving-{time.monotonic_ns()}-{number}", task_queue="integrations"
            )
        )
    await asyncio.gather(*(handle.result() for handle in handles))
    found = set()
    for handle in handles:
        async for event in handle.fetch_history_events():
            if event.HasField("activity_task_started_event_attributes"):
                found.add(event.activity_task_started_event_attributes.identity)
    return found
