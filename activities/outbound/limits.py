"""Rate limits, one bucket per instance and method for all workers: GCRA in Postgres by one upsert.

The generic cell rate algorithm (ITU-T I.371) keeps one time per bucket, when it would be empty again. Each call moves
it on by one interval, and so takes a place in the order of arrival: what it is told to wait, it need ask no second
time. Places of callers that went away are lost, which errs on the side of the upstream.
"""

from __future__ import annotations

from datetime import timedelta

from integration_service.contracts.definitions import RateLimits
from integration_service.storage.database import Database

_RESERVE = """
INSERT INTO integrations.rate_buckets AS bucket (instance_id, method, empty_at)
VALUES (%(instance_id)s, %(method)s, clock_timestamp() + %(interval)s)
ON CONFLICT (instance_id, method) DO UPDATE
   SET empty_at = greatest(bucket.empty_at, clock_timestamp()) + %(interval)s
RETURNING empty_at - %(interval)s - %(tolerance)s - clock_timestamp() AS wait
"""
_PUSH = """
INSERT INTO integrations.rate_buckets AS bucket (instance_id, method, empty_at)
VALUES (%(instance_id)s, %(method)s, clock_timestamp() + %(delay)s + %(tolerance)s)
ON CONFLICT (instance_id, method) DO UPDATE
   SET empty_at = greatest(bucket.empty_at, clock_timestamp() + %(delay)s + %(tolerance)s)
"""


class RateLimiter:
    """Reserves places. `requestsPerMinute` is the pace, `burstLimit` (1 without it) how many may come at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, instance_id: str, method: str, limits: RateLimits) -> timedelta:
        """Take the next place; returns how long it is until then, 0 for at once."""
        interval, tolerance = _pace(limits)
        row = await self._database.one(
            _RESERVE,
            {"instance_id": instance_id, "method": method, "interval": interval, "tolerance": tolerance},
        )
        wait: timedelta = row["wait"] if row else timedelta(0)
        return max(wait, timedelta(0))

    async def push(self, instance_id: str, method: str, limits: RateLimits, delay: timedelta) -> None:
        """Let all workers know that the upstream asked for a wait: no place before it is over."""
        _, tolerance = _pace(limits)
        await self._database.one(
            _PUSH, {"instance_id": instance_id, "method": method, "delay": delay, "tolerance": tolerance}
        )


def _pace(limits: RateLimits) -> tuple[timedelta, timedelta]:
    # A burst without a pace is read as so many a second: the data model leaves each of the two optional.
    per_minute = limits.requests_per_minute or 60 * (limits.burst_limit or 1)
    interval = timedelta(minutes=1) / per_minute
    return interval, interval * ((limits.burst_limit or 1) - 1)
