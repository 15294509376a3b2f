"""The execution log's partitions, one a month (UTC): made ahead, mended where one was missing, dropped when old.

A row whose month has no partition goes into the default one, so none is refused and none is lost. Such rows are
copied out in batches while the log is in use; only the last of them move under the lock, which exchanges the default
partition for an empty one. All DDL takes the parent's lock first: a row that was on its way into the default partition
while another was attached would fail. A lock that is not had at once is given up and asked for again, because whoever
waits for it makes everybody wait who comes later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from psycopg.errors import DeadlockDetected, LockNotAvailable

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.audit_default import copy_all, copy_rows, exchange_default, has_rows, rows_of
from integration_service.storage.audit_months import after, month_of, table_of
from integration_service.storage.database import Connection, Database

MONTHS_AHEAD = 2
_STATEMENT_TIMEOUT = "10min"
_LOCK_TIMEOUT = "200ms"
_LOCK_TRIES = 60
_LOCK_PAUSE_S = 0.25
_ADVISORY_LOCK = 0x61756469

_ATTACHED = r"""
SELECT c.relname AS name,
       coalesce((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\)'))[1],
                '0001-01-01 00:00+00')::timestamptz AS start,
       coalesce((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1],
                '9999-12-31 00:00+00')::timestamptz AS until
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'audit.executions'::regclass AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
 ORDER BY 2
"""
# One probe of the key a month: the rows themselves are not read.
_MONTHS_IN_DEFAULT = """
SELECT month FROM generate_series(%(since)s::timestamptz, %(until)s::timestamptz - interval '1 month',
                                  interval '1 month') AS month
 WHERE EXISTS (SELECT FROM audit.executions_default
                WHERE scheduled_at >= month AND scheduled_at < month + interval '1 month')
"""
_EXPIRED_IN_DEFAULT = "SELECT 1 FROM audit.executions_default WHERE scheduled_at < %(before)s LIMIT 1"
_LEFT_OVER = """
SELECT c.relname AS name FROM pg_class c
 WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
   AND c.relname ~ '^executions_\\d{4}_\\d\\d$' AND c.relname < %(below)s
"""


@dataclass(frozen=True)
class Prepared:
    """What was made: months as ``2026-11``. `missed` are months that had begun, or had rows, without a partition.

    `locked_for` is the longest time for which nobody else could write.
    """

    created: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    locked_for: timedelta = timedelta(0)


class AuditPartitions:
    """The partitions of one database's execution log. One maintainer works at a time; `at` stands for now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prepare(
        self,
        *,
        keep: timedelta,
        dropped_before: datetime | None = None,
        at: datetime | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> Prepared:
        """Make this month's partition and the next ones, and those of months that have rows in the default one.

        Rows of before `dropped_before` leave the default partition for good; those that are older than `keep`, or of
        the far future, stay in it. Raises IntegrationError UNAVAILABLE when another maintainer is at it, or when a
        lock could not be had.
        """
        now = at or datetime.now(UTC)
        this, since = month_of(now), month_of(now - keep)
        until = after(this, MONTHS_AHEAD + 1)
        async with self._alone() as connection:
            covered = await rows_of(connection, _ATTACHED)
            stranded = [
                month_of(row["month"])
                for row in await rows_of(connection, _MONTHS_IN_DEFAULT, {"since": since, "until": until})
            ]
            ahead = [
                month
                for month in (after(this, number) for number in range(MONTHS_AHEAD + 1))
                if not any(row["start"] < after(month) and month < row["until"] for row in covered)
            ]
            expired = dropped_before is not None and bool(
                await rows_of(connection, _EXPIRED_IN_DEFAULT, {"before": dropped_before})
            )
            months = sorted({*stranded, *ahead})
            if not months and not expired:
                return Prepared()
            for month in months:
                await _make(connection, month)
            reached = (0, 0)
            if stranded:
                reached = await copy_all(connection, stranded, progress)

            async def exchange() -> None:
                # Rows of a month that had none before may have come since.
                late = [month for month in months if month not in stranded and await has_rows(connection, month)]
                if stranded or late or expired:
                    await copy_rows(connection, stranded, after_row=reached)
                    await copy_rows(connection, late, after_row=(0, 0))
                    await connection.execute(b"ALTER TABLE audit.executions DETACH PARTITION audit.executions_default")
                for month in months:
                    await _attach(connection, month)
                if stranded or late or expired:
                    await exchange_default(connection, months, dropped_before)

            locked_for = await _exclusively(connection, exchange)
        return Prepared(
            created=tuple(f"{month:%Y-%m}" for month in months),
            missed=tuple(f"{month:%Y-%m}" for month in months if month <= this or month in stranded),
            locked_for=locked_for,
        )

    async def drop(self, *, before: datetime) -> tuple[str, ...]:
        """Detach and drop the partitions that end by `before`, oldest first; returns their names.

        Raises IntegrationError UNAVAILABLE as `prepare` does.
        """
        async with self._alone() as connection:
            old = [row["name"] for row in await rows_of(connection, _ATTACHED) if row["until"] <= before]
            for name in old:
                detach = f"ALTER TABLE audit.executions DETACH PARTITION audit.{name}".encode()
                await _exclusively(connection, partial(_run, connection, detach))
                # Apart: nobody waits while files are removed. A table that is left over goes the next time.
                await connection.execute(f"DROP TABLE audit.{name}".encode())
            left = await rows_of(connection, _LEFT_OVER, {"below": table_of(before)})
            for row in left:
                await connection.execute(f"DROP TABLE audit.{row['name']}".encode())
        return (*old, *(row["name"] for row in left))

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Connection]:
        async with self._database.connection() as connection:
            locked = await rows_of(connection, f"SELECT pg_try_advisory_lock({_ADVISORY_LOCK}) AS mine")
            if not locked[0]["mine"]:
                raise IntegrationError(ErrorCode.UNAVAILABLE, "another maintainer is at work on the execution log")
            try:
                # A month's rows are checked and copied by statements that last longer than a call's.
                await connection.execute(f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'".encode())
                yield connection
            finally:
                # A connection that is lost has let go by itself.
                if not connection.closed:
                    await connection.execute(b"RESET statement_timeout")
                    await connection.execute(f"SELECT pg_advisory_unlock({_ADVISORY_LOCK})".encode())


async def _exclusively(connection: Connection, work: Callable[[], Awaitable[None]]) -> timedelta:
    """Do `work` in a transaction in which nobody else reads or writes the log; returns how long that was."""
    for tries_left in reversed(range(_LOCK_TRIES)):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'".encode())
                # A table whose rows were never counted is taken for a small one; here none is read whole.
                await connection.execute(b"SET LOCAL enable_seqscan = off")
                await connection.execute(b"LOCK TABLE ONLY audit.executions IN ACCESS EXCLUSIVE MODE")
                began = time.perf_counter()
                await work()
            return timedelta(seconds=time.perf_counter() - began)
        except (LockNotAvailable, DeadlockDetected):
            if tries_left:
                await asyncio.sleep(_LOCK_PAUSE_S)
    raise IntegrationError(ErrorCode.UNAVAILABLE, "the execution log's lock could not be had: something holds it long")


async def _make(connection: Connection, month: datetime) -> None:
    """The month's table, not attached yet, with a constraint that spares the scan. One that a run before left behind,
    or that somebody detached, is taken as it is."""
    name = table_of(month)
    await connection.execute(
        f"""CREATE TABLE IF NOT EXISTS audit.{name} (
                LIKE audit.executions INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING STORAGE
            ) WITH (autovacuum_enabled = false)""".encode()
    )
    bound = f"{name}_month"
    if not await rows_of(connection, "SELECT 1 FROM pg_constraint WHERE conname = %(bound)s", {"bound": bound}):
        await connection.execute(
            f"""ALTER TABLE audit.{name} ADD CONSTRAINT {bound}
                CHECK (scheduled_at >= '{month}' AND scheduled_at < '{after(month)}')""".encode()
        )


async def _attach(connection: Connection, month: datetime) -> None:
    name = table_of(month)
    await connection.execute(
        f"""ALTER TABLE audit.executions ATTACH PARTITION audit.{name}
            FOR VALUES FROM ('{month}') TO ('{after(month)}')""".encode()
    )
    # It was off, because a vacuum under way would have kept the table from being attached.
    await connection.execute(f"ALTER TABLE audit.{name} RESET (autovacuum_enabled)".encode())


async def _run(connection: Connection, statement: bytes) -> None:
    await connection.execute(statement)
