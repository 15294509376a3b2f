"""The buckets of the rate limits: GCRA, one row an instance and method, one statement a call.

The generic cell rate algorithm (ITU-T I.371) keeps one time per bucket, when it would be empty again. A row has two.
The first gives places in the order of arrival (`empty_at`): each call moves it on by one interval, and is told when to
come back. The second is taken at the send itself (`sent_at`), so that calls which come back late, after an outage or
behind a backlog, do not all send at once beside those whose turn it is. One that is not let through is told to come
again, in a queue of its own (`late_at`) that moves at the same pace. Places of callers that went away are lost, which
errs on the side of the upstream. All times are the database's.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Protocol

from psycopg.rows import DictRow

from integration_service.storage.database import Database

_NOW = "statement_timestamp()"
_MAY_SEND = f"bucket.sent_at - %(tolerance)s <= {_NOW} + %(here)s"
_SENT = f"greatest(bucket.sent_at, {_NOW}) + %(interval)s"
_LATE = f"greatest(bucket.late_at, bucket.sent_at - %(tolerance)s, {_NOW}) + %(interval)s"
_IS_DUE = f"greatest(bucket.empty_at, {_NOW}) - %(tolerance)s <= {_NOW} + %(here)s"
_RETURNING = f"""
RETURNING took, empty_at - %(interval)s - %(tolerance)s AS at, {_NOW} AS now,
          sent_at - %(interval)s - %(tolerance)s AS send_at, late_at - %(interval)s AS come_at
"""
# From the instances, so that one that was deleted meanwhile gets no row instead of an error.
_RESERVE = f"""
INSERT INTO integrations.rate_buckets AS bucket (instance_id, method, empty_at, sent_at)
SELECT id, %(method)s, {_NOW} + %(interval)s, {_NOW} + %(interval)s
  FROM integrations.instances WHERE id = %(instance_id)s
ON CONFLICT (instance_id, method) DO UPDATE
   SET empty_at = greatest(bucket.empty_at, {_NOW}) + %(interval)s,
       took = {_IS_DUE} AND {_MAY_SEND},
       sent_at = CASE WHEN {_IS_DUE} AND {_MAY_SEND} THEN {_SENT} ELSE bucket.sent_at END,
       late_at = CASE WHEN {_IS_DUE} AND NOT {_MAY_SEND} THEN {_LATE} ELSE bucket.late_at END
{_RETURNING}
"""
_TAKE = f"""
UPDATE integrations.rate_buckets AS bucket
   SET took = {_MAY_SEND},
       sent_at = CASE WHEN {_MAY_SEND} THEN {_SENT} ELSE bucket.sent_at END,
       late_at = CASE WHEN {_MAY_SEND} THEN bucket.late_at ELSE {_LATE} END
 WHERE instance_id = %(instance_id)s AND method = %(method)s
{_RETURNING}
"""
_PUSH = """
INSERT INTO integrations.rate_buckets AS bucket (instance_id, method, empty_at, sent_at, paused_until)
SELECT id, %(method)s, clock_timestamp() + %(delay)s + %(tolerance)s,
       clock_timestamp() + %(delay)s + %(tolerance)s, clock_timestamp() + %(delay)s
  FROM integrations.instances WHERE id = %(instance_id)s
ON CONFLICT (instance_id, method) DO UPDATE
   SET empty_at = greatest(bucket.empty_at, excluded.empty_at),
       sent_at = greatest(bucket.sent_at, excluded.sent_at),
       paused_until = greatest(bucket.paused_until, excluded.paused_until)
"""


class Ask(Protocol):
    """Asks for a turn: how long it is until then, less than 0 for at once; None without a row."""

    def __call__(
        self, instance_id: str, method: str, /, *, interval: timedelta, tolerance: timedelta, here: timedelta
    ) -> Awaitable[timedelta | None]: ...


class RateBuckets:
    """The buckets of one database. `here` is how long a caller waits where it is, its turn taken: up to there it is its
    turn, beyond it is when to come again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(
        self, instance_id: str, method: str, /, *, interval: timedelta, tolerance: timedelta, here: timedelta
    ) -> timedelta | None:
        """A caller that comes for the first time."""
        row = await self._ask(_RESERVE, instance_id, method, interval=interval, tolerance=tolerance, here=here)
        if row is None:
            return None
        now: datetime = row["now"]
        if row["took"]:
            at: datetime = max(row["send_at"], row["at"])
        else:
            at = row["at"] if row["at"] - now > here else row["come_at"]
        return at - now

    async def take(
        self, instance_id: str, method: str, /, *, interval: timedelta, tolerance: timedelta, here: timedelta
    ) -> timedelta | None:
        """A caller that comes back at its time, or later."""
        row = await self._ask(_TAKE, instance_id, method, interval=interval, tolerance=tolerance, here=here)
        if row is None:
            return None
        at: datetime = row["send_at"] if row["took"] else row["come_at"]
        now: datetime = row["now"]
        return at - now

    async def push(self, instance_id: str, method: str, /, *, delay: timedelta, tolerance: timedelta) -> None:
        """No turn before `delay` is over."""
        await self._database.one(
            _PUSH, {"instance_id": instance_id, "method": method, "delay": delay, "tolerance": tolerance}
        )

    async def _ask(self, statement: str, instance_id: str, method: str, **durations: timedelta) -> DictRow | None:
        return await self._database.one(statement, {"instance_id": instance_id, "method": method, **durations})
