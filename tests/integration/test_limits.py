"""Rate limits in a real Postgres: the bound of every window, the average, pauses that others asked for."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration_service.activities.outbound.limits import Place, RateLimiter, Waiting
from integration_service.contracts.definitions import RateLimits
from integration_service.devstack.stack import Stack
from integration_service.storage.database import Database
from integration_service.storage.upstream_health import HEALTH_COLUMNS, HEALTH_JOIN, UpstreamHealth
from tests.integration.conftest import Add

FIVE_SECONDS = timedelta(seconds=5)


class Noting(Database):
    """A database that keeps the places it gave, by its own clock."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.granted: list[datetime] = []
        self.statements = 0

    async def one(self, query: str, parameters: dict[str, Any]) -> Any:
        self.statements += 1
        row = await super().one(query, parameters)
        if row and "at" in row:
            self.granted.append(max(row["at"], row["now"]))
        return row


@pytest.fixture
async def pools(stack: Stack) -> AsyncIterator[list[Noting]]:
    """Four processes' worth of databases."""
    async with AsyncExitStack() as opened:
        yield [await opened.enter_async_context(Noting(stack.ready.database)) for _ in range(4)]


def granted(pools: list[Noting]) -> list[float]:
    return sorted(at.timestamp() for pool in pools for at in pool.granted)


async def pause_of(database: Database, instance_id: str, method: str = "get") -> timedelta | None:
    query = f"SELECT {HEALTH_COLUMNS} FROM integrations.instances i {HEALTH_JOIN} WHERE i.id = %(id)s"
    row = await database.one(query, {"id": instance_id, "method": method})
    assert row is not None
    return UpstreamHealth.read(row).pause


def most_beyond(times: list[float], rate: float) -> float:
    """By how much the fullest window holds more than the rate's share of it."""
    worst, lowest = 0.0, float("inf")
    for index, at in enumerate(times):
        lowest = min(lowest, index - rate * at)
        worst = max(worst, index + 1 - rate * at - lowest)
    return worst


@given(
    per_minute=st.integers(60, 60_000),
    burst=st.integers(1, 30),
    calls=st.integers(2, 80),
    pushes=st.lists(st.floats(0.01, 3), max_size=3),
    who=st.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_window_holds_more_than_the_burst_beyond_the_rate(
    pools: list[Noting], add: Add, per_minute: int, burst: int, calls: int, pushes: list[float], who: random.Random
) -> None:
    instance_id, limits = await add(), RateLimits(requests_per_minute=per_minute, burst_limit=burst)
    limiters = [RateLimiter(pool) for pool in pools]
    for pool in pools:
        pool.granted.clear()
    work: list[Callable[[], Awaitable[object]]] = [
        partial(who.choice(limiters).reserve, instance_id, "get", limits) for _ in range(calls)
    ]
    work += [partial(who.choice(limiters).push, instance_id, "get", limits, timedelta(seconds=push)) for push in pushes]
    who.shuffle(work)
    await asyncio.gather(*(begin() for begin in work))
    times = granted(pools)
    assert len(times) == calls
    # Between the two looks at the clock within a statement a busy machine may do something else.
    assert most_beyond(times, per_minute / 60) <= burst + 0.05 * per_minute / 60


async def test_the_average_is_the_rate_over_all_workers(pools: list[Noting], add: Add) -> None:
    instance_id, limits = await add(), RateLimits(requests_per_minute=600, burst_limit=10)
    await asyncio.gather(
        *(RateLimiter(pools[number % 4]).reserve(instance_id, "get", limits) for number in range(1200))
    )
    times = granted(pools)
    for start in (0.0, 30.0, 59.0):
        within = [at for at in times if start <= at - times[0] < start + 60]
        assert len(within) == pytest.approx(600, rel=0.02)


async def test_no_place_lies_within_a_pause_and_none_are_given_at_once_after_it(pools: list[Noting], add: Add) -> None:
    instance_id, limits = await add(), RateLimits(requests_per_minute=600, burst_limit=10)
    await RateLimiter(pools[0]).push(instance_id, "get", limits, FIVE_SECONDS)
    waits = await asyncio.gather(
        *(RateLimiter(pools[number % 4]).reserve(instance_id, "get", limits) for number in range(20))
    )
    assert min(waits) > timedelta(seconds=4.5)
    times = granted(pools)
    assert all(later - sooner > 0.099 for sooner, later in itertools.pairwise(times))


@pytest.mark.parametrize("limits", [None, RateLimits(requests_per_minute=60)])
async def test_every_worker_reads_a_pause_with_the_instance(
    pools: list[Noting], add: Add, limits: RateLimits | None
) -> None:
    instance_id = await add()
    assert await pause_of(pools[0], instance_id) is None
    await RateLimiter(pools[0]).push(instance_id, "get", limits, FIVE_SECONDS)
    # A shorter one that comes later takes nothing back.
    await RateLimiter(pools[1]).push(instance_id, "get", limits, timedelta(seconds=1))
    for pool in pools:
        pause = await pause_of(pool, instance_id)
        assert pause is not None
        assert timedelta(seconds=4) < pause <= FIVE_SECONDS
        assert await pause_of(pool, instance_id, "other") is None


async def test_a_method_without_limits_waits_for_a_pause_spread_out_and_asks_nothing(pools: list[Noting]) -> None:
    limiter = RateLimiter(pools[0])
    assert await limiter.place("unknown", "get", None) == Place()
    places = [await limiter.place("unknown", "get", None, pause=FIVE_SECONDS) for _ in range(200)]
    waits = sorted(place.wait for place in places)
    assert not any(place.reserved for place in places)
    assert waits[0] >= FIVE_SECONDS
    assert waits[-1] <= 2 * FIVE_SECONDS
    assert max(later - sooner for sooner, later in itertools.pairwise(waits)) < timedelta(seconds=1)
    assert waits[-1] - waits[0] > timedelta(seconds=4)
    long = await limiter.place("unknown", "get", None, pause=timedelta(hours=1))
    assert timedelta(hours=1) <= long.wait <= timedelta(hours=1, minutes=1)
    assert pools[0].statements == 0


async def test_a_reserved_place_is_good_until_a_pause_takes_it(pools: list[Noting], add: Add) -> None:
    instance_id, limits = await add(), RateLimits(requests_per_minute=30)
    limiter = RateLimiter(pools[0])
    assert await limiter.place(instance_id, "get", limits) == Place(reserved=True)
    second = await limiter.place(instance_id, "get", limits)
    assert timedelta(seconds=1.9) < second.wait <= timedelta(seconds=2)
    await asyncio.sleep(second.wait.total_seconds())
    assert (await limiter.place(instance_id, "get", limits, reserved=True)).wait < timedelta(milliseconds=20)
    await limiter.push(instance_id, "get", limits, FIVE_SECONDS)
    again = await limiter.place(instance_id, "get", limits, pause=FIVE_SECONDS, reserved=True)
    assert again.reserved
    assert again.wait > timedelta(seconds=4.5)


async def test_those_who_come_back_late_do_not_send_all_at_once(pools: list[Noting], add: Add) -> None:
    """Places passed while nobody could take them: what is sent keeps to the limit all the same, and nobody starves."""
    instance_id, limits = await add(), RateLimits(requests_per_minute=1200, burst_limit=5)
    limiters = [RateLimiter(pool) for pool in pools]
    first = await asyncio.gather(*(limiters[number % 4].place(instance_id, "get", limits) for number in range(100)))
    sent = [0.0 for place in first if place.wait <= timedelta(seconds=1)]
    late = len(first) - len(sent)
    began = asyncio.get_running_loop().time()
    longest = max(place.wait for place in first)
    await asyncio.sleep(longest.total_seconds())

    async def come_back(number: int) -> float:
        limiter = limiters[number % 4]
        while True:
            place = await limiter.place(instance_id, "get", limits, reserved=True)
            await asyncio.sleep(place.wait.total_seconds())
            if place.wait <= timedelta(seconds=1):
                return asyncio.get_running_loop().time() - began

    times = sorted(await asyncio.gather(*(come_back(number) for number in range(late))))
    assert most_beyond(times, 20) <= 5 + 2  # waking up takes a moment now and then
    assert times[-1] - times[0] < 2 * late / 20


async def test_a_deleted_instance_is_no_error(pools: list[Noting]) -> None:
    limiter, gone = RateLimiter(pools[0]), str(uuid.uuid4())
    assert await limiter.reserve(gone, "get", RateLimits(burst_limit=1)) == timedelta(0)
    await limiter.push(gone, "get", None, FIVE_SECONDS)


async def test_only_so_many_wait_here_and_none_for_long() -> None:
    waiting, short = Waiting(2), timedelta(milliseconds=50)
    assert await waiting.sleep(timedelta(0))
    assert not await waiting.sleep(timedelta(seconds=1, microseconds=1))
    first, second = (asyncio.create_task(waiting.sleep(short)) for _ in range(2))
    await asyncio.sleep(0)
    assert not await waiting.sleep(short)
    assert await waiting.sleep(timedelta(0))
    assert all(await asyncio.gather(first, second))
    # A sleeper that is cancelled gives its place back.
    for _ in range(3):
        task = asyncio.create_task(waiting.sleep(timedelta(seconds=1)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await waiting.sleep(short)
