"""The execution log's partitions, one a month (UTC): made ahead, mended where one was missing, dropped when old.

A row whose month has no partition goes into the default one, so none is refused and none is lost. Such rows are
copied out in batches while the log is in use; only the last of them move under the lock, which exchanges the default
partition for an empty one. All DDL takes the parent's lock first: a row that was on its way into the default partition
while another was attached would fail. A lock that is not had at once is given up and asked for again, because whoever
waits for it makes everybody wait who comes later.

The tables themselves are touched by functions of schema `audit` only (migration 0010), which run as their owner: a
maintainer needs the role `integrations_maintenance` and owns nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.errors import DeadlockDetected, LockNotAvailable

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.audit_default import copy_all, rows_of
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
_MONTHS_IN_DEFAULT = "SELECT month FROM audit.months_in_default(%(since)s, %(until)s) AS month"
_EXPIRED_IN_DEFAULT = "SELECT audit.default_reaches_before(%(before)s) AS expired"
_LEFT_OVER = """
SELECT c.relname AS name FROM pg_class c
 WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
   AND c.relname ~ '^executions_\\d{4}_\\d\\d$' AND c.relname < %(below)s
"""
_ATTACH = """
SELECT audit.attach_months(%(months)s, %(copied)s, %(dropped_before)s, %(xid)s, %(seq)s)
"""
_DROP = "SELECT audit.drop_detached(%(name)s)"


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
            expired = (await rows_of(connection, _EXPIRED_IN_DEFAULT, {"before": dropped_before}))[0]["expired"]
            months = sorted({*stranded, *ahead})
            if not months and not expired:
                return Prepared()
            for month in months:
                await rows_of(connection, "SELECT audit.make_month(%(month)s)", {"month": month})
            reached = await copy_all(connection, stranded, progress) if stranded else (0, 0)
            values = {"months": months, "copied": stranded, "dropped_before": dropped_before}
            locked_for = await _exclusively(connection, _ATTACH, {**values, "xid": reached[0], "seq": reached[1]})
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
                await _exclusively(connection, "SELECT audit.detach_month(%(name)s)", {"name": name})
                # Apart: nobody waits while files are removed. A table that is left over goes the next time.
                await rows_of(connection, _DROP, {"name": name})
            left = await rows_of(connection, _LEFT_OVER, {"below": table_of(before)})
            for row in left:
                await rows_of(connection, _DROP, {"name": row["name"]})
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


async def _exclusively(connection: Connection, statement: str, values: dict[str, Any]) -> timedelta:
    """Run a statement in a transaction in which nobody else reads or writes the log; returns how long that was."""
    for tries_left in reversed(range(_LOCK_TRIES)):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'".encode())
                # A table whose rows were never counted is taken for a small one; here none is read whole.
                await connection.execute(b"SET LOCAL enable_seqscan = off")
                await connection.execute(b"SELECT audit.lock_executions()")
                began = time.perf_counter()
                await connection.execute(statement.encode(), values)
            return timedelta(seconds=time.perf_counter() - began)
        except (LockNotAvailable, DeadlockDetected):
            if tries_left:
                await asyncio.sleep(_LOCK_PAUSE_S)
    raise IntegrationError(ErrorCode.UNAVAILABLE, "the execution log's lock could not be had: something holds it long")
