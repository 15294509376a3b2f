"""The log's partitions in a real Postgres: made ahead, mended, dropped; no row lost and no insert refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.audit_months import after, month_of
from integration_service.storage.audit_partitions import AuditPartitions
from tests.audit_rows import Trail

KEEP = timedelta(days=400)
NOW = datetime.now(UTC)
THIS = month_of(NOW)


def table(months: int) -> str:
    return f"executions_{after(THIS, months):%Y_%m}"


@pytest.mark.parametrize(
    ("month", "months", "then"),
    [("2026-12", 1, "2027-01"), ("2026-01", 2, "2026-03"), ("2026-01", -1, "2025-12"), ("2026-11", 14, "2028-01")],
)
def test_months_are_counted_over_the_years_end(month: str, months: int, then: str) -> None:
    first = datetime.fromisoformat(f"{month}-01T00:00:00+00:00")
    assert f"{after(first, months):%Y-%m}" == then


async def test_a_fresh_database_has_this_month_and_the_next_two(trail: Trail) -> None:
    assert set(await trail.layout()) == {table(0), table(1), table(2), "executions_default"}
    prepared = await trail.partitions.prepare(keep=KEEP)
    assert (prepared.created, prepared.missed) == ((), ())


async def test_a_month_later_the_next_is_made_and_nothing_was_missed(trail: Trail) -> None:
    prepared = await trail.partitions.prepare(keep=KEEP, at=after(THIS) + timedelta(days=1))
    assert prepared.created == (f"{after(THIS, 3):%Y-%m}",)
    assert prepared.missed == ()
    assert table(3) in await trail.layout()


async def test_every_partition_has_the_indexes(trail: Trail) -> None:
    await trail.run(f"DROP TABLE audit.{table(1)}")
    await trail.partitions.prepare(keep=KEEP)
    for name in (table(0), table(1), "executions_default"):
        rows = await trail.database.all(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'audit' AND tablename = %(name)s", {"name": name}
        )
        kinds = sorted(row["indexdef"].split(" USING ")[1] for row in rows)
        assert kinds == [
            "brin (scheduled_at)",
            "btree (instance_id, scheduled_at)",
            "btree (recorded_xid, seq)",
            "btree (scheduled_at, execution_key, attempt)",
        ]


async def test_rows_of_months_without_a_partition_are_moved_and_told(trail: Trail) -> None:
    old, present, far = after(THIS, -2), NOW, after(THIS, 30)
    await trail.run(f"DROP TABLE audit.{table(0)}")
    await trail.record(old, present, present, far)
    before = await trail.database.all("SELECT * FROM audit.executions ORDER BY seq")
    assert (await trail.layout())["executions_default"] == 4
    prepared = await trail.partitions.prepare(keep=KEEP)
    assert prepared.created == prepared.missed == (f"{old:%Y-%m}", f"{THIS:%Y-%m}")
    assert await trail.layout() == {
        table(-2): 1, table(0): 2, table(1): 0, table(2): 0, "executions_default": 1
    }  # fmt: skip
    assert await trail.database.all("SELECT * FROM audit.executions ORDER BY seq") == before
    assert (await trail.partitions.prepare(keep=KEEP)).created == ()


async def test_a_partition_that_somebody_detached_is_taken_back_with_its_rows(trail: Trail) -> None:
    await trail.record(NOW)
    await trail.run(f"ALTER TABLE audit.executions DETACH PARTITION audit.{table(0)}")
    await trail.record(NOW)
    prepared = await trail.partitions.prepare(keep=KEEP)
    assert prepared.missed == (f"{THIS:%Y-%m}",)
    assert (await trail.layout())[table(0)] == 2


async def test_a_run_that_died_after_copying_is_taken_up(trail: Trail) -> None:
    await trail.run(f"DROP TABLE audit.{table(0)}")
    rows = await trail.record(*[NOW] * 5)
    async with await psycopg.AsyncConnection.connect(trail.url) as reader:
        # Whoever reads holds a lock, so the exchange is given up, after the rows were copied.
        await reader.execute("SELECT count(*) FROM audit.executions")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("integration_service.storage.audit_partitions._LOCK_TRIES", 1)
            with pytest.raises(IntegrationError) as refused:
                await trail.partitions.prepare(keep=KEEP)
        assert refused.value.code == ErrorCode.UNAVAILABLE
        assert (await trail.layout())["executions_default"] == 5
    await trail.record(NOW)
    await trail.partitions.prepare(keep=KEEP)
    assert (await trail.layout())[table(0)] == len(rows) + 1


async def test_while_a_reader_holds_its_lock_writers_wait_a_moment_only(trail: Trail) -> None:
    await trail.run(f"DROP TABLE audit.{table(0)}")
    await trail.record(NOW)
    loop = asyncio.get_running_loop()
    async with await psycopg.AsyncConnection.connect(trail.url) as reader:
        await reader.execute("SELECT count(*) FROM audit.executions")
        mending = asyncio.create_task(trail.partitions.prepare(keep=KEEP))
        waits = []
        for _ in range(40):
            began = loop.time()
            await trail.record(NOW)
            waits.append(loop.time() - began)
        assert not mending.done()
    assert (await mending).missed
    assert max(waits) < 1
    assert (await trail.layout())[table(0)] == 41


async def test_two_maintainers_do_not_work_at_once(trail: Trail) -> None:
    await trail.run(f"DROP TABLE audit.{table(0)}")
    await trail.record(NOW)
    both = await asyncio.gather(*(trail.partitions.prepare(keep=KEEP) for _ in range(2)), return_exceptions=True)
    assert (await trail.layout())[table(0)] == 1
    for refused in both:
        assert not isinstance(refused, BaseException) or (
            isinstance(refused, IntegrationError) and refused.code == ErrorCode.UNAVAILABLE
        )


async def test_a_month_is_dropped_whole_and_only_once_it_has_ended(trail: Trail) -> None:
    await trail.record(NOW)
    assert await trail.partitions.drop(before=NOW) == ()
    assert await trail.partitions.drop(before=after(THIS, 2)) == (table(0), table(1))
    assert set(await trail.layout()) == {"executions_default", table(2)}


async def test_a_month_that_was_detached_and_not_dropped_goes_the_next_time(trail: Trail) -> None:
    await trail.run(f"ALTER TABLE audit.executions DETACH PARTITION audit.{table(0)}")
    assert await trail.partitions.drop(before=THIS) == ()
    assert await trail.partitions.drop(before=after(THIS)) == (table(0),)


async def test_what_retention_covers_leaves_the_default_partition_once_it_was_announced(trail: Trail) -> None:
    ancient = after(THIS, -60)
    await trail.record(ancient, NOW)
    await trail.partitions.prepare(keep=KEEP)
    assert (await trail.layout())["executions_default"] == 1
    await trail.partitions.prepare(keep=KEEP, dropped_before=month_of(NOW - KEEP))
    assert (await trail.layout())["executions_default"] == 0


async def test_no_insert_fails_and_none_is_lost_while_partitions_come_and_go(trail: Trail) -> None:
    await trail.run(f"DROP TABLE audit.{table(0)}")
    stop = asyncio.Event()
    times = [after(THIS, months) for months in (-1, 0, 1, 3)]

    async def write() -> int:
        written = 0
        while not stop.is_set():
            await trail.record(times[written % len(times)])
            written += 1
        return written

    writers = [asyncio.create_task(write()) for _ in range(6)]
    locked = timedelta(0)
    for months in range(1, 5):
        locked = max(
            locked, (await AuditPartitions(trail.database).prepare(keep=KEEP, at=after(THIS, months))).locked_for
        )
    stop.set()
    written = sum(await asyncio.gather(*writers))
    layout = await trail.layout()
    assert sum(layout.values()) == written > 0
    assert layout["executions_default"] == 0
    assert locked < timedelta(seconds=0.5)
