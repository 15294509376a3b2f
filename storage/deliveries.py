"""Deliveries: one row an event and subscription, claimed by lease, settled by whoever claimed it last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from integration_service.contracts.events import DELIVERY_TRIES_FOR, CloudEvent
from integration_service.contracts.wire import JsonObject, format_time
from integration_service.storage.database import Database
from integration_service.storage.outbox import EVENT_COLUMNS, MATCHES, cloud_event

_EVENT = ", ".join(f"e.{name}" for name in EVENT_COLUMNS)
# By the statement's time: an index serves no `clock_timestamp()`.
# Of an instance's events in order, only the first that is still owed to a subscription can be claimed.
_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT found.*
      FROM integrations.subscriptions s
     CROSS JOIN LATERAL (
        SELECT d.subscription_id, d.event_id FROM integrations.deliveries d
         WHERE d.subscription_id = s.id AND d.state = 'PENDING' AND d.due_at <= statement_timestamp()
           AND (d.sequence IS NULL OR NOT EXISTS (
                    SELECT FROM integrations.deliveries first
                     WHERE first.subscription_id = d.subscription_id AND first.instance_id = d.instance_id
                       AND first.state = 'PENDING' AND first.sequence < d.sequence))
         ORDER BY d.due_at LIMIT %(each)s FOR UPDATE SKIP LOCKED) found
     WHERE s.enabled AND s.id <> ALL (%(passing_over)s::uuid[])
     LIMIT %(limit)s
)
UPDATE integrations.deliveries d
   SET claims = d.claims + 1, due_at = clock_timestamp() + %(lease)s
  FROM due, integrations.events e, integrations.subscriptions s
 WHERE d.subscription_id = due.subscription_id AND d.event_id = due.event_id
   AND e.id = due.event_id AND s.id = due.subscription_id
RETURNING d.subscription_id, d.claims, d.failures, s.webhook_url, s.workflow_id, s.signal_name, {_EVENT}
"""
# What is due by now and was not claimed waits for one in order, whose time has yet to come.
_NEXT_DUE = """
SELECT min(found.due_at) - clock_timestamp() AS wait
  FROM integrations.subscriptions s
 CROSS JOIN LATERAL (
    SELECT d.due_at FROM integrations.deliveries d
     WHERE d.subscription_id = s.id AND d.state = 'PENDING' AND d.due_at > statement_timestamp() - interval '1 second'
     ORDER BY d.due_at LIMIT 1) found
 WHERE s.enabled
"""
_MINE = "subscription_id = %(subscription_id)s AND event_id = %(event_id)s AND claims = %(claims)s"
_WANTED = f"""
    SELECT s.id AS subscription_id, {_EVENT}
      FROM integrations.events e JOIN integrations.subscriptions s ON {MATCHES}
      LEFT JOIN integrations.deliveries d ON d.subscription_id = s.id AND d.event_id = e.id
     WHERE (%(event_id)s::uuid IS NULL OR e.id = %(event_id)s)
       AND (%(subscription_id)s::uuid IS NULL OR s.id = %(subscription_id)s)
       AND (%(since)s::timestamptz IS NULL OR e.time >= %(since)s)
       AND (%(until)s::timestamptz IS NULL OR e.time < %(until)s)
       AND (NOT %(dead)s OR d.state = 'DEAD') AND d.state IS DISTINCT FROM 'PENDING'
"""


@dataclass(frozen=True)
class Delivery:
    """One event for one subscription, claimed. `claims` is the fence: only the last claimant settles it."""

    subscription_id: str
    claims: int
    failures: int
    webhook_url: str | None
    workflow_id: str | None
    signal_name: str | None
    event: CloudEvent

    @property
    def key(self) -> dict[str, Any]:
        return {"subscription_id": self.subscription_id, "event_id": self.event.id, "claims": self.claims}


@dataclass(frozen=True)
class ReplayFilter:
    """Which events go out again, to whom; what is left out does not narrow. `dead` takes dead letters only."""

    event_id: str | None = None
    subscription_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    dead: bool = False


class Deliveries:
    """The deliveries of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, *, limit: int, each: int, lease: timedelta, passing_over: frozenset[str] = frozenset()
    ) -> list[Delivery]:
        """Take what is due, at most `each` of a subscription, for the length of a lease.

        An event in order is due only when the one before it is settled. Subscriptions in `passing_over` are left.
        """
        rows = await self._database.all(
            _CLAIM, {"limit": limit, "each": each, "lease": lease, "passing_over": sorted(passing_over)}
        )
        return [
            Delivery(
                subscription_id=str(row["subscription_id"]),
                claims=row["claims"],
                failures=row["failures"],
                webhook_url=row["webhook_url"],
                workflow_id=row["workflow_id"],
                signal_name=row["signal_name"],
                event=cloud_event(row),
            )
            for row in rows
        ]

    async def next_due(self) -> timedelta | None:
        """How long until one is due that could not be claimed just now; None when there is none."""
        row = await self._database.one(_NEXT_DUE, {})
        wait: timedelta | None = row["wait"] if row else None
        return wait

    async def delivered(self, delivery: Delivery) -> None:
        """It arrived."""
        await self._database.one(
            f"""UPDATE integrations.deliveries
                   SET state = 'DELIVERED', settled_at = clock_timestamp(), last_error = NULL
                 WHERE {_MINE} AND state = 'PENDING'""",
            delivery.key,
        )

    async def failed(self, delivery: Delivery, reason: str, *, again_in: timedelta) -> bool:
        """It did not arrive: it is due again after a while, or a dead letter when that is too late.

        `reason` is a code or a status. Returns whether it is dead now.
        """
        row = await self._database.one(
            f"""WITH head AS (
                    UPDATE integrations.deliveries
                       SET failures = failures + 1, last_error = %(reason)s, due_at = clock_timestamp() + %(again)s,
                           state = CASE WHEN clock_timestamp() + %(again)s > queued_at + %(tried_for)s
                                        THEN 'DEAD' ELSE 'PENDING' END,
                           settled_at = CASE WHEN clock_timestamp() + %(again)s > queued_at + %(tried_for)s
                                             THEN clock_timestamp() END
                     WHERE {_MINE} AND state = 'PENDING'
                    RETURNING state, subscription_id, instance_id, sequence, due_at
                ), followers AS (
                    -- They cannot go before it, so no claim need look at them before it is due.
                    UPDATE integrations.deliveries d SET due_at = head.due_at
                      FROM head
                     WHERE head.state = 'PENDING' AND d.subscription_id = head.subscription_id
                       AND d.instance_id = head.instance_id AND d.state = 'PENDING'
                       AND d.sequence > head.sequence AND d.due_at < head.due_at
                )
                SELECT state FROM head""",
            {**delivery.key, "reason": reason, "again": again_in, "tried_for": DELIVERY_TRIES_FOR},
        )
        return row is not None and row["state"] == "DEAD"

    async def gone(self, delivery: Delivery, reason: str) -> int:
        """Nobody is there any more: disable the subscription; all that is owed to it are dead letters.

        Returns how many.
        """
        async with self._database.transaction() as connection:
            mine = await connection.execute(
                f"SELECT 1 FROM integrations.deliveries WHERE {_MINE} AND state = 'PENDING' FOR UPDATE".encode(),
                delivery.key,
            )
            if await mine.fetchone() is None:
                return 0
            await connection.execute(
                b"UPDATE integrations.subscriptions SET enabled = false, disabled_reason = %s WHERE id = %s",
                (reason, delivery.subscription_id),
            )
            cursor = await connection.execute(
                b"""UPDATE integrations.deliveries
                       SET state = 'DEAD', settled_at = clock_timestamp(), last_error = %s
                     WHERE subscription_id = %s AND state = 'PENDING'""",
                (reason, delivery.subscription_id),
            )
            return cursor.rowcount

    async def dead(self, *, limit: int, subscription_id: str | None = None) -> list[JsonObject]:
        """The newest dead letters, newest last: their event, subscription, reason and attempts."""
        rows = await self._database.all(
            """SELECT d.event_id, d.subscription_id, e.type, e.subject, e.time, d.claims, d.last_error, d.settled_at
                 FROM integrations.deliveries d JOIN integrations.events e ON e.id = d.event_id
                WHERE d.state = 'DEAD' AND (%(id)s::uuid IS NULL OR d.subscription_id = %(id)s)
                ORDER BY d.settled_at DESC LIMIT %(limit)s""",
            {"id": subscription_id, "limit": limit},
        )
        return [
            {
                "eventId": str(row["event_id"]),
                "subscriptionId": str(row["subscription_id"]),
                "type": row["type"],
                "subject": row["subject"],
                "time": format_time(row["time"]),
                "attempts": row["claims"],
                "reason": row["last_error"],
                "deadSince": format_time(row["settled_at"]),
            }
            for row in reversed(rows)
        ]

    async def replay(self, wanted: ReplayFilter) -> int:
        """Owe events again to the subscriptions that match them now; what is still owed stays as it is.

        Returns how many deliveries that makes. An instance's events keep their order among themselves.
        """
        row = await self._database.one(
            f"""WITH wanted AS ({_WANTED}), queued AS (
                    INSERT INTO integrations.deliveries AS d (subscription_id, event_id, instance_id, sequence)
                    SELECT subscription_id, id, CASE WHEN sequence IS NOT NULL THEN instance_id END, sequence
                      FROM wanted
                    ON CONFLICT (subscription_id, event_id) DO UPDATE
                       SET state = 'PENDING', failures = 0, last_error = NULL, settled_at = NULL,
                           queued_at = excluded.queued_at, due_at = excluded.due_at
                     WHERE d.state <> 'PENDING'
                    RETURNING d.event_id)
                SELECT count(*) AS queued FROM queued""",
            vars(wanted),
        )
        return int(row["queued"]) if row else 0

    async def would_replay(self, wanted: ReplayFilter) -> int:
        """How many deliveries `replay` would make."""
        row = await self._database.one(f"SELECT count(*) AS found FROM ({_WANTED}) wanted", vars(wanted))
        return int(row["found"]) if row else 0
