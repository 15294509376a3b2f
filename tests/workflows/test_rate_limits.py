"""`rateLimits`: one bucket per instance and method, whoever calls and however many at once."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from datetime import timedelta

import pytest
from temporalio.common import RetryPolicy

from integration_service.activities.outbound.limits import RateLimiter
from integration_service.contracts.calls import MethodResult
from integration_service.contracts.definitions import RateLimits
from tests.upstream import json_answer
from tests.world import World, definition_file, method

pytestmark = pytest.mark.slow


async def test_places_are_given_in_order_and_none_twice(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    limiter, limits = RateLimiter(world.database), RateLimits(requests_per_minute=60, burst_limit=5)
    waits = await asyncio.gather(*(limiter.reserve(instance["id"], "get", limits) for _ in range(30)))
    assert [wait for wait in waits if wait == timedelta(0)] == [timedelta(0)] * 5
    later = sorted(wait for wait in waits if wait)
    assert timedelta(seconds=24) < later[-1] <= timedelta(seconds=25)
    gaps = [second - first for first, second in itertools.pairwise(later)]
    assert all(gap > timedelta(milliseconds=500) for gap in gaps)


async def test_a_burst_passes_and_what_is_beyond_waits_without_spending_a_retry(world: World, name: str) -> None:
    no_retries = {"maxRetries": 0, "backoffMultiplier": 1, "initialDelayMs": 1, "maxDelayMs": 1}
    limited = method("get", "GET", "/x", retryConfig=no_retries, rateLimits={"requestsPerMinute": 40, "burstLimit": 2})
    instance = await world.instance(definition_file(name, methods=[limited]))
    results = await asyncio.gather(*(world.call(instance, "get") for _ in range(4)))
    assert [result.attempts for result in results] == [1] * 4
    first, third, fourth = (world.upstream.seen[index].at for index in (0, 2, 3))
    assert third - first >= 1.4
    assert fourth - first >= 2.9
    assert len(world.upstream.seen) == 4


async def test_a_foreign_caller_takes_its_reserved_place(world: World, name: str) -> None:
    limited = method("get", "GET", "/x", rateLimits={"requestsPerMinute": 30})
    instance = await world.instance(definition_file(name, methods=[limited]))

    async def standalone() -> MethodResult:
        return await world.temporal.execute_activity(
            f"{name}.get",
            {"instanceId": instance["id"]},
            id=str(uuid.uuid4()),
            task_queue="integrations",
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(maximum_attempts=5),
            result_type=MethodResult,
        )

    results = await asyncio.gather(standalone(), standalone())
    assert [result.attempts for result in results] == [1, 1]
    assert 1.9 <= world.upstream.gaps()[0] < 3.5


async def test_the_upstreams_retry_after_holds_for_the_other_callers_too(world: World, name: str) -> None:
    limited = method("get", "GET", "/x", rateLimits={"requestsPerMinute": 6000, "burstLimit": 100})
    instance = await world.instance(definition_file(name, methods=[limited]))
    world.upstream.answers = [json_answer({}, 429, Retry_After="2"), json_answer({})]
    first = asyncio.create_task(world.call(instance, "get"))
    while not world.upstream.seen:
        await asyncio.sleep(0.01)
    await asyncio.gather(first, world.call(instance, "get"))
    after = [seen.at - world.upstream.seen[0].at for seen in world.upstream.seen[1:]]
    assert min(after) >= 1.9
