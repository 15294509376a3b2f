"""Rate limits, one bucket per instance and method for all workers: GCRA in Postgres by one upsert.

The generic cell rate algorithm (ITU-T I.371) keeps one time per bucket, when it would be empty again. Each call moves
it on by one interval, and so takes a place in the order of arrival: what it is told to wait, it need ask no second
time. Places of callers that went away are lost, which errs on the side of the upstream. All times are the database's.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta

from integration_service.contracts.definitions import RateLimits
from integration_service.storage.database import Database

# From the instances, so that one that was deleted meanwhile gets no row instead of an error.
_RESERVE = """
INSERT INTO integrations.rate_buckets AS bucket (instance_id, method, empty_at)
SELECT id, %(method)s, clock_timestamp() + %(interval)s FROM integrations.instances WHERE id = %(instance_id)s
ON CONFLICT (instance_id, method) DO UPDATE
   SET empty_at = greatest(bucket.empty_at, clock_timestamp()) + %(interval)s
RETURNING empty_at - %(interval)s - %(tolerance)s AS at, clock_timestamp() AS now
"""
_PUSH = """
INSERT INTO integrations.rate_buckets AS bucket (instance_id, method, empty_at, paused_until)
SELECT id, %(method)s, clock_timestamp() + %(delay)s + %(tolerance)s, clock_timestamp() + %(delay)s
  FROM integrations.instances WHERE id = %(instance_id)s
ON CONFLICT (instance_id, method) DO UPDATE
   SET empty_at = greatest(bucket.empty_at, excluded.empty_at),
       paused_until = greatest(bucket.paused_until, excluded.paused_until)
"""
_AT_ONCE = timedelta(0)
_SPREAD_FROM, _SPREAD_TO = timedelta(seconds=1), timedelta(minutes=1)
WAITED_HERE = timedelta(seconds=1)


@dataclass(frozen=True)
class Place:
    """When a call may send. `reserved` says that it need not ask again once `wait` is over."""

    wait: timedelta = _AT_ONCE
    reserved: bool = False


class RateLimiter:
    """Reserves places. `requestsPerMinute` is the pace, `burstLimit` (1 without it) how many may come at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
            return Place()
        return Place(await self.reserve(instance_id, method, limits), reserved=True)

    async def reserve(self, instance_id: str, method: str, limits: RateLimits) -> timedelta:
        """Take the next place; returns how long it is until then, 0 for at once."""
        interval, tolerance = _pace(limits)
        row = await self._database.one(
            _RESERVE,
            {"instance_id": instance_id, "method": method, "interval": interval, "tolerance": tolerance},
        )
        wait: timedelta = row["at"] - row["now"] if row else _AT_ONCE
        return max(wait, _AT_ONCE)

    async def push(self, instance_id: str, method: str, limits: RateLimits | None, delay: timedelta) -> None:
        """Let all workers know that the upstream asked for a wait: no place before it is over."""
        tolerance = _pace(limits)[1] if limits else _AT_ONCE
        await self._database.one(
            _PUSH, {"instance_id": instance_id, "method": method, "delay": delay, "tolerance": tolerance}
        )


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
