"""Rate limits, one bucket per instance and method for all workers: GCRA in Postgres, one statement a call.

Each call takes a place in the order of arrival, and is told when to come back; whoever comes back late, after an outage
or behind a backlog, takes his turn at the send (`storage.rate_buckets` tells how).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta

from integration_service.contracts.definitions import RateLimits
from integration_service.storage.database import Database
from integration_service.storage.rate_buckets import Ask, RateBuckets

_AT_ONCE = timedelta(0)
_SPREAD_FROM, _SPREAD_TO = timedelta(seconds=1), timedelta(minutes=1)
WAITED_HERE = timedelta(seconds=1)


@dataclass(frozen=True)
class Place:
    """When a call may send, or come again. `reserved` says that it has its turn in the queue when it does."""

    wait: timedelta = _AT_ONCE
    reserved: bool = False


class RateLimiter:
    """Reserves places. `requestsPerMinute` is the pace, `burstLimit` (1 without it) how many may come at once."""

    def __init__(self, database: Database) -> None:
        self._buckets = RateBuckets(database)

    async def place(
        self,
        instance_id: str,
        method: str,
        limits: RateLimits | None,
        *,
        pause: timedelta | None = None,
        reserved: bool = False,
    ) -> Place:
        """When a call may send, by the method's own limits and by what the upstream asked for.

        `pause` is what is left of the upstream's wait, as it was read with the instance; `reserved` says that the
        caller waited for a place that it was given. A pause takes such places away: they are given again after it, at
        the method's pace. Without limits, those who wait come back spread out, and no statement is sent.
        """
        if limits is None:
            return Place(_spread(pause)) if pause else Place()
        if reserved and not pause:
            return await self._asked(self._buckets.take, instance_id, method, limits)
        return await self._asked(self._buckets.reserve, instance_id, method, limits)

    async def reserve(self, instance_id: str, method: str, limits: RateLimits) -> timedelta:
        """Take the next place; returns how long it is until then, 0 for at once."""
        return (await self._asked(self._buckets.reserve, instance_id, method, limits)).wait

    async def _asked(self, ask: Ask, instance_id: str, method: str, limits: RateLimits) -> Place:
        interval, tolerance = _pace(limits)
        turn = await ask(instance_id, method, interval=interval, tolerance=tolerance, here=WAITED_HERE)
        # None: the instance is gone, or a crash of the database emptied the buckets.
        return Place(max(turn, _AT_ONCE), reserved=True) if turn is not None else Place()

    async def push(self, instance_id: str, method: str, limits: RateLimits | None, delay: timedelta) -> None:
        """Let all workers know that the upstream asked for a wait: no place before it is over."""
        tolerance = _pace(limits)[1] if limits else _AT_ONCE
        await self._buckets.push(instance_id, method, delay=delay, tolerance=tolerance)


class Waiting:
    """Short waits that keep their slot: at most `limit` at a time, so that sleepers never fill a worker."""

    def __init__(self, limit: int, *, longest: timedelta = WAITED_HERE) -> None:
        self._free = limit
        self._longest = longest

    async def sleep(self, wait: timedelta) -> bool:
        """Wait here. False, at once, when it is over `longest` or too many wait already: go back, come again."""
        if wait <= _AT_ONCE:
            return True
        if wait > self._longest or self._free <= 0:
            return False
        self._free -= 1
        try:
            await asyncio.sleep(wait.total_seconds())
        finally:
            self._free += 1
        return True


def _spread(pause: timedelta) -> timedelta:
    # As long again as the pause: those who came during it come back no faster than twice as fast as they came.
    return pause + random.random() * min(max(pause, _SPREAD_FROM), _SPREAD_TO)  # noqa: S311 - no secret


def _pace(limits: RateLimits) -> tuple[timedelta, timedelta]:
    # A burst without a pace is read as so many a second: the data model leaves each of the two optional.
    per_minute = limits.requests_per_minute or 60 * (limits.burst_limit or 1)
    interval = timedelta(minutes=1) / per_minute
    return interval, interval * ((limits.burst_limit or 1) - 1)
