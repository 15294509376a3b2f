"""The default partition's rows on their way into the partitions of their months.

They are copied in batches while the log is in use; the few that come last are copied under the log's lock, and another
default partition takes the place of this one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.audit_months import after, table_of
from integration_service.storage.database import Connection

_BATCH = 10_000
_FEW = 500
"""So many rows are moved while everybody waits."""
_MANY = 20_000

_NEXT_BATCH = f"""
SELECT recorded_xid, seq, count(*) OVER () AS rows FROM (
    SELECT recorded_xid, seq FROM audit.executions_default
     WHERE (recorded_xid, seq) > (%(xid)s, %(seq)s)
       AND recorded_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
     ORDER BY recorded_xid, seq LIMIT {_BATCH}) AS batch
 ORDER BY recorded_xid DESC, seq DESC LIMIT 1
"""
_MANY_LEFT = f"""
SELECT 1 FROM audit.executions_default WHERE (recorded_xid, seq) > (%(xid)s, %(seq)s)
 ORDER BY recorded_xid, seq OFFSET {_MANY} LIMIT 1
"""


async def copy_all(connection: Connection, months: list[datetime], progress: Callable[[], None]) -> tuple[int, int]:
    """Copy what the default partition has, until only few rows are left; returns the last one that was copied.

    Raises IntegrationError UNAVAILABLE when more are left than may be moved while everybody waits.
    """
    # Nothing has counted its rows so far, and the last of them must be found without looking at all.
    await connection.execute(b"ANALYZE audit.executions_default")
    reached, rows = (0, 0), _BATCH
    while rows >= _FEW:
        progress()
        found = await rows_of(connection, _NEXT_BATCH, {"xid": reached[0], "seq": reached[1]})
        if not found:
            break
        upto, rows = (found[0]["recorded_xid"], found[0]["seq"]), found[0]["rows"]
        await copy_rows(connection, months, after_row=reached, upto=upto)
        reached = upto
    left = await rows_of(connection, _MANY_LEFT, {"xid": reached[0], "seq": reached[1]})
    if left:
        raise IntegrationError(
            ErrorCode.UNAVAILABLE, "a transaction that has been open for long keeps rows from being moved"
        )
    return reached


async def copy_rows(
    connection: Connection, months: list[datetime], *, after_row: tuple[int, int], upto: tuple[int, int] | None = None
) -> None:
    """Copy the rows after one and up to another, in the order of (recorded_xid, seq), into their months' tables."""
    end = f"AND (recorded_xid, seq) <= ({upto[0]}, {upto[1]})" if upto else ""
    columns = await _columns(connection)
    for month in months:
        # Twice copied is once there: a run that died may have copied some.
        await connection.execute(
            f"""INSERT INTO audit.{table_of(month)} ({columns})
                SELECT {columns} FROM audit.executions_default
                 WHERE scheduled_at >= '{month}' AND scheduled_at < '{after(month)}'
                   AND (recorded_xid, seq) > ({after_row[0]}, {after_row[1]}) {end}
                 ORDER BY recorded_xid, seq
                ON CONFLICT DO NOTHING""".encode()
        )


async def has_rows(connection: Connection, month: datetime) -> bool:
    """Whether the default partition has rows of a month."""
    values = {"month": month, "until": after(month)}
    return bool(
        await rows_of(
            connection,
            """SELECT 1 FROM audit.executions_default
                WHERE scheduled_at >= %(month)s AND scheduled_at < %(until)s LIMIT 1""",
            values,
        )
    )


async def exchange_default(connection: Connection, moved: list[datetime], dropped_before: datetime | None) -> None:
    """Put another default partition in the place of the detached one, with the rows that were not moved."""
    columns = await _columns(connection)
    await connection.execute(b"ALTER TABLE audit.executions_default RENAME TO executions_moved")
    await connection.execute(
        b"""CREATE TABLE audit.executions_default PARTITION OF audit.executions DEFAULT
            WITH (autovacuum_enabled = false)"""
    )
    # Range by range, which the key finds: to look at every row that was moved would take long.
    starts = [dropped_before, *(after(month) for month in moved)]
    for start, until in zip(starts, [*moved, None], strict=True):
        bounds = [f"scheduled_at >= '{start}'"] if start else []
        bounds += [f"scheduled_at >= '{dropped_before}'"] if dropped_before else []
        bounds += [f"scheduled_at < '{until}'"] if until else []
        await connection.execute(
            f"""INSERT INTO audit.executions_default ({columns})
                SELECT {columns} FROM audit.executions_moved WHERE {" AND ".join(bounds) or "true"}""".encode()
        )
    await connection.execute(b"DROP TABLE audit.executions_moved")


async def _columns(connection: Connection) -> str:
    """By name: a later version's partitions may hold them in another order."""
    rows = await rows_of(
        connection,
        """SELECT quote_ident(attname) AS name FROM pg_attribute
            WHERE attrelid = 'audit.executions'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
    )
    return ", ".join(row["name"] for row in rows)


async def rows_of(connection: Connection, query: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """All rows of a statement."""
    cursor = await connection.execute(query.encode(), values)
    return await cursor.fetchall()
