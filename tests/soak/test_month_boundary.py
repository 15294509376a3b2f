"""A month's end under load, a week without maintenance, a partition that is gone: no row is lost, none is refused.

The clock is Postgres's and the load's own: times are made up, so that a boundary comes when the test wants it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from integration_service.devstack.stack import Stack
from integration_service.storage.audit import AuditLog
from integration_service.storage.audit_months import after, month_of
from integration_service.storage.database import Database
from tests.audit_databases import AuditDatabases
from tests.audit_rows import Trail, attempt
from tests.soak.conftest import Measured
from tests.waiting import eventually

pytestmark = pytest.mark.slow

KEEP = timedelta(days=400)
THIS = month_of(datetime.now(UTC))


@dataclass
class Load:
    """Callers that record without a pause, at times that the test moves."""

    log: AuditLog
    at: datetime
    written: int = 0
    failed: list[BaseException] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    stopped: bool = False

    async def run(self, callers: int) -> None:
        await asyncio.gather(*(self._one() for _ in range(callers)))

    async def _one(self) -> None:
        while not self.stopped:
            began = time.perf_counter()
            # Spread over the ten seconds around, so that both sides of a boundary are met.
            at = self.at + timedelta(seconds=(self.written % 11) - 5)
            try:
                await self.log.record(attempt(at), settles_intent=False)
            except Exception as error:
                self.failed.append(error)
            else:
                self.written += 1
            self.waits.append(time.perf_counter() - began)

    async def more(self, rows: int) -> None:
        """Returns once so many more rows were written."""
        goal = self.written + rows

        async def reached() -> bool:
            return self.written >= goal or bool(self.failed)

        await eventually(reached, within_s=600)


@pytest.fixture
async def trail(stack: Stack) -> AsyncIterator[Trail]:
    async with AuditDatabases(stack).fresh() as url, Database(url) as database:
        yield Trail(url, database)


async def test_a_month_ends_maintenance_is_off_and_a_partition_is_gone(
    trail: Trail, full: bool, measured: Measured
) -> None:
    rows, stranded = (200_000, 1_000_000) if full else (5_000, 20_000)
    chain = trail.chain(settled_after=timedelta(0))
    # Before the last second of the last month that was made ahead.
    load = Load(AuditLog(trail.database), after(THIS, 3) - timedelta(seconds=1))
    running = asyncio.create_task(load.run(50))
    locked = timedelta(0)
    try:
        # The month ends, maintenance as always: its partition is there before.
        await trail.partitions.prepare(keep=KEEP, at=after(THIS, 2))
        await load.more(rows)
        assert (await trail.layout())["executions_default"] == 0
        # Maintenance is off, and the next months come.
        load.at = after(THIS, 6) + timedelta(days=7)
        await load.more(stranded)
        in_default = (await trail.layout())["executions_default"]
        assert in_default >= stranded
        began, slowest_before = time.perf_counter(), len(load.waits)
        mended = await trail.partitions.prepare(keep=KEEP, at=load.at)
        took, locked = time.perf_counter() - began, mended.locked_for
        # Those that waited meanwhile have been counted by then.
        await load.more(500)
        waited = max(load.waits[slowest_before:])
        assert f"{load.at:%Y-%m}" in mended.missed
        assert (await trail.layout())["executions_default"] == 0
        # A partition is detached under the load, by somebody who then thinks better of it.
        await trail.run(f"ALTER TABLE audit.executions DETACH PARTITION audit.executions_{load.at:%Y_%m}")
        await load.more(rows)
        again = await trail.partitions.prepare(keep=KEEP, at=load.at)
        assert again.missed == (f"{load.at:%Y-%m}",)
        while await chain.seal():
            pass
    finally:
        load.stopped = True
        await running
    while await chain.seal():
        pass
    layout, found = await trail.layout(), await chain.verify()
    assert load.failed == []
    assert sum(layout.values()) == load.written
    assert layout["executions_default"] == 0
    assert (found.rows, found.bad) == (load.written, None)
    assert max(locked, again.locked_for) < timedelta(seconds=1)
    measured(
        f"{load.written} rows by 50 callers, none refused, none lost; {in_default} rows of missing months moved in "
        f"{took:.1f} s, the log locked for {locked / timedelta(milliseconds=1):.0f} ms, the longest wait "
        f"{waited * 1000:.0f} ms (of all {max(load.waits) * 1000:.0f} ms)"
    )
