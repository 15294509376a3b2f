"""The default partition's rows on their way into the partitions of their months.

They are copied in batches while the log is in use; the few that come last are moved under the log's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.database import Connection

_BATCH = 10_000
_FEW = 500
"""So many rows are moved while everybody waits."""
_MANY = 20_000

_NEXT_BATCH = "SELECT upto_xid, upto, many FROM audit.next_in_default(%(xid)s, %(seq)s, %(batch)s)"
_COPY = "SELECT audit.copy_to_months(%(months)s, %(xid)s, %(seq)s, %(upto_xid)s, %(upto)s)"
_MANY_LEFT = "SELECT audit.default_has_more(%(xid)s, %(seq)s, %(many)s) AS more"


async def copy_all(connection: Connection, months: list[datetime], progress: Callable[[], None]) -> tuple[int, int]:
    """Copy what the default partition has, until only few rows are left; returns the last one that was copied.

    Raises IntegrationError UNAVAILABLE when more are left than may be moved while everybody waits.
    """
    # Nothing has counted its rows so far, and the last of them must be found without looking at all.
    await connection.execute(b"SELECT audit.count_default()")
    reached, rows = {"xid": 0, "seq": 0}, _BATCH
    while rows >= _FEW:
        progress()
        [found] = await rows_of(connection, _NEXT_BATCH, {**reached, "batch": _BATCH})
        if found["upto"] is None:
            break
        rows = found["many"]
        await rows_of(connection, _COPY, {**reached, **found, "months": months})
        reached = {"xid": found["upto_xid"], "seq": found["upto"]}
    [left] = await rows_of(connection, _MANY_LEFT, {**reached, "many": _MANY})
    if left["more"]:
        raise IntegrationError(
            ErrorCode.UNAVAILABLE, "a transaction that has been open for long keeps rows from being moved"
        )
    return reached["xid"], reached["seq"]


async def rows_of(connection: Connection, query: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """All rows of a statement."""
    cursor = await connection.execute(query.encode(), values)
    return await cursor.fetchall()
