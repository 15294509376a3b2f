"""What all workers know of an upstream's health: what a call reads with its instance, and the breakers' rows."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from integration_service.storage.database import Database

WINDOW_S = 30
"""Sends are counted over so many seconds, by the second."""

HEALTH_JOIN = """
LEFT JOIN integrations.rate_buckets pause
       ON pause.instance_id = i.id AND pause.method = %(method)s AND pause.paused_until > clock_timestamp()
"""
"""For a statement over `integrations.instances i` with the parameter `method`."""
HEALTH_COLUMNS = f"""
pause.paused_until - clock_timestamp() AS pause,
(SELECT json_agg(json_build_object(
            'host', b.host,
            'sends', (SELECT sum(n) FROM unnest(b.sends) n),
            'failures', (SELECT sum(n) FROM unnest(b.failures) n),
            'open_until', extract(epoch FROM b.opened_until),
            'opens_in', extract(epoch FROM b.opened_until - clock_timestamp())))
   FROM integrations.breakers b
  WHERE b.instance_id = i.id
    AND (b.opened_until IS NOT NULL OR b.newest > extract(epoch FROM clock_timestamp()) - {WINDOW_S})) AS breakers
"""


@dataclass(frozen=True)
class BreakerState:
    """A breaker as it was read. `failures` of `sends` in the window, or in the one that opened it.

    `open_for` is how long it stays open, 0 or less once a probe is due; None, like `open_until`, while it is closed.
    """

    host: str
    sends: int
    failures: int
    open_until: datetime | None = None
    open_for: timedelta | None = None


@dataclass(frozen=True)
class UpstreamHealth:
    """What a call reads with its instance. `pause` is what is left of a wait that the upstream asked for."""

    pause: timedelta | None = None
    breakers: tuple[BreakerState, ...] = ()

    @classmethod
    def read(cls, row: dict[str, Any]) -> UpstreamHealth:
        """From the columns of `HEALTH_COLUMNS`."""
        return cls(row["pause"], tuple(_state(item) for item in row["breakers"] or ()))

    def breaker(self, host: str) -> BreakerState | None:
        """The breaker of that host; None where nothing failed of late."""
        return next((state for state in self.breakers if state.host == host), None)


# Each count is by the second, the newest first. What the process counted is laid upon what the row holds, which is
# first moved to the present. One statement, one row: those who fail at the same time take turns on its lock.
_NOW = "floor(extract(epoch FROM clock_timestamp()))::bigint"
_MOVED = f"(array_fill(0, ARRAY[least(greatest({_NOW} - b.newest, 0), {WINDOW_S})::int]) || b.{{0}})[1:{WINDOW_S}]"
_ADDED = f"""(SELECT array_agg(coalesce(old, 0) + new ORDER BY second)
                FROM unnest({_MOVED}, %({{0}})s::int[]) WITH ORDINALITY AS pair (old, new, second))"""
_OPENS = """CASE WHEN {sends} >= %(min_sends)s AND {failures} * 2 >= {sends}
                 THEN clock_timestamp() + %(open_for)s::interval END"""
_FIRST_OPENS = _OPENS.format(sends="%(sends_sum)s::int", failures="%(failures_sum)s::int")
_NOTE = f"""
INSERT INTO integrations.breakers AS b (instance_id, host, newest, sends, failures, opened_until, open_for)
SELECT id, %(host)s, {_NOW}, %(sends)s::int[], %(failures)s::int[], {_FIRST_OPENS}, %(open_for)s
  FROM integrations.instances WHERE id = %(instance_id)s
ON CONFLICT (instance_id, host) DO UPDATE
   SET (newest, sends, failures, opened_until) = (
       SELECT greatest({_NOW}, b.newest), counted.sends, counted.failures,
              {_OPENS.format(sends="total.sends", failures="total.failures")}
         FROM (SELECT {_ADDED.format("sends")} AS sends, {_ADDED.format("failures")} AS failures) counted,
              LATERAL (SELECT (SELECT sum(n) FROM unnest(counted.sends) n) AS sends,
                              (SELECT sum(n) FROM unnest(counted.failures) n) AS failures) total)
 WHERE b.opened_until IS NULL
RETURNING b.host, (SELECT sum(n) FROM unnest(b.sends) n) AS sends,
          (SELECT sum(n) FROM unnest(b.failures) n) AS failures,
          extract(epoch FROM b.opened_until) AS open_until,
          extract(epoch FROM b.opened_until - clock_timestamp()) AS opens_in
"""
# The lock on the row lets one claim through; who waited for it sees the claim and gets nothing.
_CLAIM = """
WITH claimed AS (
    UPDATE integrations.breakers
       SET probe_id = %(probe_id)s, probe_until = clock_timestamp() + %(within)s
     WHERE instance_id = %(instance_id)s AND host = %(host)s AND opened_until <= clock_timestamp()
       AND (probe_until IS NULL OR probe_until <= clock_timestamp())
    RETURNING 1
)
SELECT EXISTS (SELECT 1 FROM claimed) AS claimed,
       EXISTS (SELECT 1 FROM integrations.breakers WHERE instance_id = %(instance_id)s AND host = %(host)s
                  AND opened_until IS NOT NULL) AS is_open
"""
_CLOSE = """
DELETE FROM integrations.breakers
 WHERE instance_id = %(instance_id)s AND host = %(host)s AND probe_id = %(probe_id)s
RETURNING host, (SELECT sum(n) FROM unnest(sends) n) AS sends, (SELECT sum(n) FROM unnest(failures) n) AS failures,
          NULL AS open_until, NULL AS opens_in
"""
_REOPEN = """
UPDATE integrations.breakers
   SET open_for = least(open_for * 2, %(longest)s::interval),
       opened_until = clock_timestamp() + least(open_for * 2, %(longest)s::interval),
       probe_id = NULL, probe_until = NULL
 WHERE instance_id = %(instance_id)s AND host = %(host)s AND probe_id = %(probe_id)s
RETURNING host, (SELECT sum(n) FROM unnest(sends) n) AS sends, (SELECT sum(n) FROM unnest(failures) n) AS failures,
          extract(epoch FROM opened_until) AS open_until,
          extract(epoch FROM opened_until - clock_timestamp()) AS opens_in
"""
_RELEASE = """
UPDATE integrations.breakers SET probe_id = NULL, probe_until = NULL
 WHERE instance_id = %(instance_id)s AND host = %(host)s AND probe_id = %(probe_id)s
"""
_DELETE_STALE = f"""
DELETE FROM integrations.breakers
 WHERE (opened_until IS NULL AND newest < extract(epoch FROM now()) - {10 * WINDOW_S})
    OR opened_until < now() - interval '1 day'
"""


class BreakerRows:
    """The breakers of one database. Every method is one statement."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(
        self,
        instance_id: str,
        host: str,
        *,
        sends: Sequence[int],
        failures: Sequence[int],
        min_sends: int,
        open_for: timedelta,
    ) -> BreakerState | None:
        """Add what was counted, `WINDOW_S` numbers each, this second's first; open the breaker where half have failed.

        The state after it; None where the breaker was open already, or the instance is gone.
        """
        row = await self._database.one(
            _NOTE,
            {
                "instance_id": instance_id,
                "host": host,
                "sends": list(sends),
                "failures": list(failures),
                "sends_sum": sum(sends),
                "failures_sum": sum(failures),
                "min_sends": min_sends,
                "open_for": open_for,
            },
        )
        return _state(row) if row else None

    async def claim(self, instance_id: str, host: str, *, within: timedelta) -> tuple[str | None, bool]:
        """Claim the probe for so long: its id, or None for everyone else; and whether the breaker was open at all."""
        probe_id = str(uuid.uuid4())
        row = await self._database.one(
            _CLAIM, {"instance_id": instance_id, "host": host, "probe_id": probe_id, "within": within}
        )
        claimed, is_open = (row["claimed"], row["is_open"]) if row else (False, False)
        return (probe_id if claimed else None), is_open

    async def close(self, instance_id: str, host: str, probe_id: str) -> BreakerState | None:
        """Close a breaker whose probe succeeded; None when the claim is another's by now."""
        row = await self._database.one(_CLOSE, {"instance_id": instance_id, "host": host, "probe_id": probe_id})
        return _state(row) if row else None

    async def reopen(self, instance_id: str, host: str, probe_id: str, *, longest: timedelta) -> BreakerState | None:
        """Open it again, twice as long as before; None when the claim is another's by now."""
        row = await self._database.one(
            _REOPEN, {"instance_id": instance_id, "host": host, "probe_id": probe_id, "longest": longest}
        )
        return _state(row) if row else None

    async def release(self, instance_id: str, host: str, probe_id: str) -> None:
        """Give back a claim whose probe told nothing."""
        await self._database.one(_RELEASE, {"instance_id": instance_id, "host": host, "probe_id": probe_id})

    async def delete_stale(self) -> None:
        """Forget breakers that nobody has asked for: closed and silent, or open since yesterday."""
        await self._database.one(_DELETE_STALE, {})


def _state(row: dict[str, Any]) -> BreakerState:
    until, left = row["open_until"], row["opens_in"]
    return BreakerState(
        host=row["host"],
        sends=int(row["sends"] or 0),
        failures=int(row["failures"] or 0),
        open_until=datetime.fromtimestamp(float(until), UTC) if until is not None else None,
        open_for=timedelta(seconds=float(left)) if left is not None else None,
    )
