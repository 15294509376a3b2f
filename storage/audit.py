"""The execution log: one row per attempt, without parameter values and without secrets."""

from __future__ import annotations

from typing import Any

from integration_service.storage.audit_writer import AuditWriter
from integration_service.storage.database import Database
from integration_service.storage.execution import COLUMNS, Execution

__all__ = ["AuditLog", "Execution"]


class AuditLog:
    """Writes and reads the execution log, and the intents that a log row settles."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer = AuditWriter(database)

    async def record(self, execution: Execution, *, settles_intent: bool) -> None:
        """Commit an attempt's row; in the same statement settle its intent and note the instance's use.

        Raises IntegrationError UNAVAILABLE, or VALIDATION_ERROR for a text that the database cannot store.
        """
        await self._writer.write(execution, settles_intent=settles_intent)

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
            f"""SELECT {", ".join(COLUMNS)}, recorded_at FROM audit.executions
                 WHERE (%(instance_id)s::uuid IS NULL OR instance_id = %(instance_id)s)
                   AND (%(scope)s::text IS NULL OR scope = %(scope)s)
                 ORDER BY scheduled_at DESC, recorded_at DESC LIMIT %(limit)s""",
            {"instance_id": instance_id, "scope": scope, "limit": limit},
        )
        return [dict(row) for row in reversed(rows)]
