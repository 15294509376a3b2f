"""The outbox: events are written by the very statement that does what they tell of.

The functions here give common table expressions to put into such a statement, after ``WITH``. Each takes the name of
an expression that holds the rows the events are about, and makes the events and, where a subscription matches, what
is to be delivered.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from integration_service.contracts.events import (
    KEPT_FOR,
    CloudEvent,
    EventDraft,
    EventType,
    event_source,
    sequence_text,
)
from integration_service.contracts.maintenance import SEALED
from integration_service.contracts.names import DEFAULT_SCOPE
from integration_service.contracts.wire import JsonObject
from integration_service.storage.database import Database

MATCHES = """(s.enabled AND (s.all_scopes OR s.scope = e.scope) AND e.type LIKE ANY (s.type_patterns)
     AND (s.definition IS NULL OR s.definition = e.definition)
     AND (s.instance_id IS NULL OR s.instance_id = e.instance_id))"""
"""Whether subscription `s` wants event `e`."""
EVENT_COLUMNS = ("id", "type", "scope", "subject", "instance_id", "definition", "sequence", "time", "data")
_EVENT = ", ".join(EVENT_COLUMNS)
# How the wire writes times.
WIRE_TIME = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
_PRUNED = 5_000


def drafts_parameter(drafts: Sequence[EventDraft]) -> str:
    """The parameter ``events`` of a statement with `ordered_events`."""
    return json.dumps([draft.to_wire() for draft in drafts])


def ordered_events(source: str) -> str:
    """Writes the drafts of parameter ``events``, numbered per instance.

    `source` holds at most one row, with ``instance_id``, ``scope`` and ``definition`` (a name). The instance's
    sequence row is locked until the commit: lock nothing after it.
    """
    count = "jsonb_array_length(%(events)s::jsonb)"
    return f"""
    numbered AS (
        INSERT INTO integrations.event_sequences AS numbers (instance_id, last)
        SELECT instance_id, {count} FROM {source} WHERE {count} > 0
        ON CONFLICT (instance_id) DO UPDATE SET last = numbers.last + excluded.last
        RETURNING instance_id, last
    ), event AS (
        INSERT INTO integrations.events ({_EVENT})
        SELECT (draft ->> 'id')::uuid, draft ->> 'type', {source}.scope, instance_id::text, instance_id,
               {source}.definition, numbered.last - {count} + position, clock_timestamp(),
               {_about(source)} || (draft -> 'data')
          FROM {source} JOIN numbered USING (instance_id),
               jsonb_array_elements(%(events)s::jsonb) WITH ORDINALITY AS drafts (draft, position)
        RETURNING {_EVENT}
    ), {_DELIVERY}"""


def method_events(source: str) -> str:
    """Writes one event a row of `source`, where a subscription matches. It takes no parameter.

    `source` is the ``INSERT INTO audit.executions … RETURNING *`` of the log: any number of rows, and none for a row
    that was there already.
    """
    return f"""
    told AS (
        SELECT CASE status WHEN 'SUCCEEDED' THEN '{EventType.METHOD_EXECUTED}' ELSE '{EventType.METHOD_FAILED}' END
                   AS type,
               scope, instance_id, definition,
               {_about(source)} || jsonb_strip_nulls(jsonb_build_object(
                   'definitionVersion', definition_version, 'method', method, 'executionKey', execution_key,
                   'attempt', attempt, 'code', code, 'statusCode', http_status, 'durationMs', duration_ms,
                   'workflowId', workflow_id, 'runId', run_id, 'correlationId', correlation_id)) AS data
          FROM {source}
    ), event AS (
        INSERT INTO integrations.events ({_EVENT})
        SELECT gen_random_uuid(), type, scope, instance_id::text, instance_id, definition, NULL::bigint,
               clock_timestamp(), data
          FROM told e WHERE EXISTS (SELECT FROM integrations.subscriptions s WHERE {MATCHES})
        RETURNING {_EVENT}
    ), {_DELIVERY}"""


def _about(source: str) -> str:
    return f"""jsonb_build_object('instanceId', {source}.instance_id, 'scope', {source}.scope,
                                  'definition', {source}.definition)"""


_DELIVERY = f"""delivery AS (
        INSERT INTO integrations.deliveries (subscription_id, event_id, instance_id, sequence)
        SELECT s.id, e.id, CASE WHEN e.sequence IS NOT NULL THEN e.instance_id END, e.sequence
          FROM event e JOIN integrations.subscriptions s ON {MATCHES}
    )"""


class Outbox:
    """The events of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def audit_news(self, kind: str, data: JsonObject) -> None:
        """Write what maintenance says of the execution log: that it was sealed, or what is wrong with it."""
        event = EventType.AUDIT_SEALED if kind == SEALED else EventType.AUDIT_ALERT
        await self.publish(EventDraft(event, {"kind": kind, **data}), subject="audit")

    async def publish(
        self, draft: EventDraft, *, subject: str, scope: str = DEFAULT_SCOPE, only_if_wanted: bool = False
    ) -> None:
        """Write an event of the service itself, of no instance and in no order, in a transaction of its own.

        With `only_if_wanted` it is kept only where a subscription matches.
        """
        await self._database.one(
            f"""WITH told AS (
                    SELECT %(id)s::uuid AS id, %(type)s::text AS type, %(scope)s::text AS scope,
                           NULL::uuid AS instance_id, NULL::text AS definition
                ), event AS (
                    INSERT INTO integrations.events (id, type, scope, subject, data)
                    SELECT id, type, scope, %(subject)s, %(data)s::jsonb FROM told e
                     WHERE NOT %(only_if_wanted)s OR EXISTS (SELECT FROM integrations.subscriptions s WHERE {MATCHES})
                    RETURNING {_EVENT}
                ), {_DELIVERY}
                SELECT 1""",
            {
                **draft.to_wire(),
                "data": json.dumps(draft.data),
                "scope": scope,
                "subject": subject,
                "only_if_wanted": only_if_wanted,
            },
        )

    async def announce_expiring(self, *, within_hours: int = 24) -> int:
        """Write `integration.credential.expiring` for what ends soon and nothing renews, once a generation.

        Returns how many were written.
        """
        row = await self._database.one(
            f"""WITH ending AS (
                    SELECT c.instance_id, c.generation, c.expires_at, i.scope, d.name AS definition
                      FROM vault.credentials c
                      JOIN integrations.instances i ON i.id = c.instance_id
                      JOIN integrations.definitions d ON d.id = i.definition_id
                      LEFT JOIN integrations.event_sequences n ON n.instance_id = c.instance_id
                     WHERE NOT c.renewable AND c.expires_at IS NOT NULL
                       AND c.expires_at <= now() + make_interval(hours => %(hours)s)
                       AND c.generation > coalesce(n.expiring_generation, 0)
                     -- In one order, so that two at once never wait for each other.
                     ORDER BY c.instance_id LIMIT 500
                ), numbered AS (
                    INSERT INTO integrations.event_sequences AS numbers (instance_id, last, expiring_generation)
                    SELECT instance_id, 1, generation FROM ending
                    ON CONFLICT (instance_id) DO UPDATE
                       SET last = numbers.last + 1, expiring_generation = excluded.expiring_generation
                     WHERE numbers.expiring_generation < excluded.expiring_generation
                    RETURNING instance_id, last
                ), event AS (
                    INSERT INTO integrations.events ({_EVENT})
                    SELECT gen_random_uuid(), '{EventType.CREDENTIAL_EXPIRING}', ending.scope, instance_id::text,
                           instance_id, ending.definition, numbered.last, clock_timestamp(),
                           {_about("ending")} || jsonb_build_object(
                               'generation', generation, 'expiresAt', {WIRE_TIME.format("expires_at")})
                      FROM ending JOIN numbered USING (instance_id)
                    RETURNING {_EVENT}
                ), {_DELIVERY}
                SELECT count(*) AS written FROM event""",
            {"hours": within_hours},
        )
        return int(row["written"]) if row else 0

    async def prune(self) -> int:
        """Delete what is older than `KEPT_FOR` and owed to nobody; at most a few thousand events. Returns how many."""
        row = await self._database.one(
            """WITH old AS (
                   SELECT id FROM integrations.events e
                    WHERE time < now() - %(kept)s
                      AND NOT EXISTS (SELECT FROM integrations.deliveries d
                                        JOIN integrations.subscriptions s ON s.id = d.subscription_id
                                       WHERE d.event_id = e.id AND d.state = 'PENDING')
                    ORDER BY time LIMIT %(most)s
               ), gone AS (
                   DELETE FROM integrations.events USING old WHERE events.id = old.id RETURNING events.id
               )
               SELECT count(*) AS deleted FROM gone""",
            {"kept": KEPT_FOR, "most": _PRUNED},
        )
        return int(row["deleted"]) if row else 0

    async def tail(
        self, *, limit: int, scope: str | None = None, instance_id: str | None = None, pattern: str | None = None
    ) -> list[CloudEvent]:
        """The newest events, newest last; `pattern` is one of LIKE."""
        rows = await self._database.all(
            f"""SELECT {_EVENT} FROM integrations.events
                 WHERE (%(scope)s::text IS NULL OR scope = %(scope)s)
                   AND (%(instance_id)s::uuid IS NULL OR instance_id = %(instance_id)s)
                   AND (%(pattern)s::text IS NULL OR type LIKE %(pattern)s)
                 ORDER BY time DESC, sequence DESC LIMIT %(limit)s""",
            {"scope": scope, "instance_id": instance_id, "pattern": pattern, "limit": limit},
        )
        return [cloud_event(row) for row in reversed(rows)]


def cloud_event(row: dict[str, Any]) -> CloudEvent:
    """A row of `events` on the wire."""
    return CloudEvent(
        id=str(row["id"]),
        source=event_source(row["scope"], row["definition"]),
        type=row["type"],
        subject=row["subject"],
        time=row["time"],
        sequence=sequence_text(row["sequence"]) if row["sequence"] is not None else None,
        data=row["data"],
    )
