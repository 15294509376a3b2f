"""The execution log: one row per attempt, without parameter values and without secrets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from integration_service.storage.database import Database


@dataclass(frozen=True)
class Execution:
    """One attempt at one method call.

    `scheduled_at` is when the activity was first scheduled, the same for all of its attempts, so that writing
    the row twice gives one row. Durations are milliseconds, sizes bytes of the bodies as sent and received.
    """

    scheduled_at: datetime
    execution_key: str
    attempt: int
    scope: str
    instance_id: str
    definition: str
    definition_version: str
    method: str
    workflow_id: str | None
    run_id: str | None
    activity_id: str | None
    status: str
    code: str | None
    http_status: int | None
    duration_ms: int
    request_bytes: int
    response_bytes: int
    correlation_id: str | None


_COLUMNS = tuple(Execution.__dataclass_fields__)
_RECORD = f"""
WITH execution AS (
    INSERT INTO audit.executions ({", ".join(_COLUMNS)})
    VALUES ({", ".join(f"%({name})s" for name in _COLUMNS)})
    ON CONFLICT DO NOTHING
), intent AS (
    DELETE FROM integrations.send_intents WHERE %(settles_intent)s AND execution_key = %(execution_key)s
)
-- At most one write in ten seconds, so that a busy instance has no hot row.
INSERT INTO integrations.instance_usage AS usage (instance_id, last_used_at)
SELECT id, now() FROM integrations.instances i
 WHERE id = %(instance_id)s
   AND NOT EXISTS (SELECT 1 FROM integrations.instance_usage u
                    WHERE u.instance_id = i.id AND u.last_used_at > now() - interval '10 seconds')
ON CONFLICT (instance_id) DO UPDATE SET last_used_at = excluded.last_used_at
"""


class AuditLog:
    """Writes and reads the execution log, and the intents that a log row settles."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, execution: Execution, *, settles_intent: bool) -> None:
        """Commit an attempt's row; in the same statement settle its intent and note the instance's use."""
        await self._database.one(_RECORD, {**asdict(execution), "settles_intent": settles_intent})

    async def intend(self, execution_key: str) -> bool:
        """Commit the intent to send a request that must not be sent twice.

        False when an earlier send of the same execution left its intent behind: its outcome is unknown.
        """
        row = await self._database.one(
            """INSERT INTO integrations.send_intents (execution_key) VALUES (%(key)s)
               ON CONFLICT DO NOTHING RETURNING execution_key""",
            {"key": execution_key},
        )
        return row is not None

    async def tail(
        self, *, limit: int, instance_id: str | None = None, scope: str | None = None
    ) -> list[dict[str, Any]]:
        """The newest rows, newest last."""
        rows = await self._database.all(
            f"""SELECT {", ".join(_COLUMNS)}, recorded_at FROM audit.executions
                 WHERE (%(instance_id)s::uuid IS NULL OR instance_id = %(instance_id)s)
                   AND (%(scope)s::text IS NULL OR scope = %(scope)s)
                 ORDER BY scheduled_at DESC, recorded_at DESC LIMIT %(limit)s""",
            {"instance_id": instance_id, "scope": scope, "limit": limit},
        )
        return [dict(row) for row in reversed(rows)]
