"""Which database this program fits, told without loading Alembic."""

from __future__ import annotations

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.database import Database

SCHEMA = "integrations"
HEAD = "0013"


async def check_schema_version(database: Database, *, running: bool = False) -> None:
    """Refuse a database that is older or newer than this program, with the command to run.

    A process that is `running` goes on with a newer one: the migration comes before the processes that need it.
    """
    exists = await database.one("SELECT to_regclass('integrations.alembic_version') IS NOT NULL AS known", {})
    row = (
        await database.one("SELECT version_num FROM integrations.alembic_version", {})
        if exists and exists["known"]
        else None
    )
    found = row["version_num"] if row else None
    if found == HEAD or (running and found is not None and found > HEAD):
        return
    if found is None or found < HEAD:
        state = "is empty" if found is None else f"is at {found}, older than this program ({HEAD})"
        raise IntegrationError(
            ErrorCode.UNAVAILABLE, f"the database {state}: run `integrations migrate`", path="database"
        )
    raise IntegrationError(
        ErrorCode.UNAVAILABLE,
        f"the database is at {found}, newer than this program ({HEAD}): deploy the newer program",
        path="database",
    )
