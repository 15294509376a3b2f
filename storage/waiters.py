"""Calls that wait until their instance is connected again."""

from __future__ import annotations

from psycopg.errors import ForeignKeyViolation

from integration_service.storage.database import Database
from integration_service.storage.instances import not_found


class Waiters:
    """The waiting calls of one database, one row a workflow and instance."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, *, instance_id: str, workflow_id: str, run_id: str) -> None:
        """Note that a workflow waits. Raises IntegrationError INSTANCE_NOT_FOUND."""
        try:
            await self._database.one(
                """INSERT INTO integrations.waiters (instance_id, workflow_id, run_id)
                   VALUES (%(instance_id)s, %(workflow_id)s, %(run_id)s)
                   ON CONFLICT (instance_id, workflow_id) DO UPDATE SET run_id = excluded.run_id""",
                {"instance_id": instance_id, "workflow_id": workflow_id, "run_id": run_id},
            )
        except ForeignKeyViolation:
            raise not_found(instance_id) from None

    async def take(self, instance_id: str) -> list[tuple[str, str]]:
        """Who waits, as (workflow id, run id); they are forgotten with this, and woken by the caller."""
        rows = await self._database.all(
            """DELETE FROM integrations.waiters WHERE instance_id = %(instance_id)s
               RETURNING workflow_id, run_id""",
            {"instance_id": instance_id},
        )
        return [(row["workflow_id"], row["run_id"]) for row in rows]
