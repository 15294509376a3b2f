"""The log's seals in a real Postgres: all is covered however late it commits, and whatever was touched shows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration_service.storage.audit_chain import AuditChain, Verification, _Extent
from integration_service.storage.audit_months import after, month_of
from integration_service.storage.audit_seal import NO_SEAL, Seal
from tests.audit_rows import Trail

NOW = datetime.now(UTC)
THIS = month_of(NOW)
AT_ONCE = timedelta(0)


async def seal_all(chain: AuditChain) -> list[Seal]:
    seals = []
    while (seal := await chain.seal()) is not None:
        seals.append(seal)
    return seals


async def sealed(trail: Trail, *, rows: int = 10, batch: int = 4) -> AuditChain:
    """Ten rows, sealed by four, four and two."""
    await trail.record(*[NOW] * rows)
    chain = trail.chain(settled_after=AT_ONCE, batch=batch)
    await seal_all(chain)
    return chain


def told(found: Verification) -> tuple[int, str] | None:
    return (found.bad.number, found.bad.reason) if found.bad else None


async def test_rows_are_sealed_in_batches_that_follow_from_each_other(trail: Trail) -> None:
    chain = await sealed(trail)
    found = await chain.verify()
    head = await chain.head()
    assert (found.seals, found.rows, found.first, found.bad) == (3, 10, 1, None)
    assert head is not None
    assert found.head == head.hash
    assert await chain.unsealed() == 0
    assert await chain.holds(head.previous_hash)
    assert not await chain.holds(b"another")
    assert await chain.seal() is None


async def test_an_empty_chain_holds(trail: Trail) -> None:
    found = await trail.chain().verify()
    assert (found.seals, found.rows, found.first, found.bad) == (0, 0, None, None)


async def test_a_young_row_waits_and_one_from_a_wrong_clock_does_not(trail: Trail) -> None:
    await trail.record(NOW)
    chain = trail.chain(settled_after=timedelta(minutes=5))
    assert await chain.seal() is None
    assert await chain.unsealed() == 1
    await trail.run("UPDATE audit.executions SET recorded_at = now() + interval '1 year'")
    assert await chain.seal() is not None


async def test_an_old_row_after_a_young_one_waits_with_it(trail: Trail) -> None:
    rows = await trail.record(NOW, NOW, NOW)
    for index in (0, 2):
        await trail.run(
            f"""UPDATE audit.executions SET recorded_at = now() - interval '1 hour'
                 WHERE execution_key = '{rows[index].execution_key}'"""
        )
    seal = await trail.chain().seal()
    assert seal is not None
    assert seal.rows == 1


async def test_a_transaction_that_commits_late_holds_the_seal_back_and_is_covered(trail: Trail) -> None:
    (first,) = await trail.record(NOW)
    chain = trail.chain(settled_after=AT_ONCE)
    async with await psycopg.AsyncConnection.connect(trail.url) as late:
        await late.execute(
            """INSERT INTO audit.executions SELECT (jsonb_populate_record(e, jsonb_build_object(
                     'attempt', 2, 'recorded_xid', pg_current_xact_id()::text::bigint,
                     'seq', nextval('audit.executions_seq')))).* FROM audit.executions e"""
        )
        await trail.record(NOW)
        assert [seal.rows for seal in await seal_all(chain)] == [1]
        await late.commit()
    assert [seal.rows for seal in await seal_all(chain)] == [2]
    found = await chain.verify()
    assert (found.rows, found.bad) == (3, None)
    assert first.attempt == 1


async def test_an_attempt_recorded_late_with_an_older_time_is_covered(trail: Trail) -> None:
    chain = await sealed(trail)
    await trail.record(after(THIS, -3))
    assert await chain.unsealed() == 1
    (seal,) = await seal_all(chain)
    assert [part[0] for part in seal.parts] == [f"{after(THIS, -3):%Y-%m}"]
    assert (await chain.verify()).bad is None


TOUCHED = {
    "a value": ("UPDATE audit.executions SET status = 'FAILED' WHERE seq = 6", "were changed"),
    "null for text": ("UPDATE audit.executions SET workflow_id = NULL WHERE seq = 6", "were changed"),
    "a time by a microsecond": (
        "UPDATE audit.executions SET recorded_at = recorded_at + interval '1 microsecond' WHERE seq = 6",
        "were changed",
    ),
    "the order": ("UPDATE audit.executions SET seq = 13 - seq WHERE seq IN (6, 7)", "were changed"),
    "a row is gone": ("DELETE FROM audit.executions WHERE seq = 6", "1 of 4 rows"),
    "a row came": (
        """INSERT INTO audit.executions SELECT (jsonb_populate_record(e, '{"attempt": 9}')).*
             FROM audit.executions e WHERE seq = 6""",
        "1 rows",
    ),
}


@pytest.mark.parametrize("kind", TOUCHED)
async def test_what_was_touched_shows_in_its_batch(trail: Trail, kind: str) -> None:
    chain = await sealed(trail)
    statement, reason = TOUCHED[kind]
    await trail.run(statement)
    found = await chain.verify()
    assert found.bad is not None
    assert found.bad.number == 2
    assert reason in found.bad.reason
    assert (found.seals, found.rows) == (1, 4)


SEALS = {
    "UPDATE audit.seals SET parts = '[]' WHERE number = 2": (2, "the seal itself was changed"),
    "UPDATE audit.seals SET parts = '{\"a\": 1}' WHERE number = 2": (2, "the seal itself was changed"),
    "UPDATE audit.seals SET sealed_at = sealed_at + interval '1 second' WHERE number = 2": (
        2, "the seal itself was changed",
    ),
    "UPDATE audit.seals SET dropped_before = now() WHERE number = 3": (3, "the seal itself was changed"),
    "DELETE FROM audit.seals WHERE number = 2": (3, "1 seals before it are missing"),
    "DELETE FROM audit.seals WHERE number = 1": (2, "1 seals before it are missing"),
}  # fmt: skip


@pytest.mark.parametrize("statement", SEALS)
async def test_a_seal_that_was_touched_shows(trail: Trail, statement: str) -> None:
    chain = await sealed(trail)
    await trail.run(statement)
    assert told(await chain.verify()) == SEALS[statement]


async def test_a_row_and_its_seal_made_anew_show_in_the_next_seal(trail: Trail) -> None:
    chain = await sealed(trail)
    await trail.run("DELETE FROM audit.executions WHERE seq = 6")
    row = await trail.database.one("SELECT * FROM audit.seals WHERE number = 2", {})
    assert row is not None
    forged = Seal.read(row)
    month, rows, _ = forged.parts[0]
    found = await chain.verify()
    assert found.bad is not None
    parts = await chain._parts(
        *await _extent_of(trail, 2),
    )
    forged = replace(forged, parts=((month, rows - 1, parts[0]["hash"]),))
    await trail.database.one(
        "UPDATE audit.seals SET parts = %(parts)s::json, hash = %(hash)s WHERE number = 2",
        {"parts": f'[["{month}", {rows - 1}, "{parts[0]["hash"]}"]]', "hash": forged.digest()},
    )
    assert told(await chain.verify()) == (3, "it does not follow from the seal before it")


async def _extent_of(trail: Trail, number: int) -> tuple[object, tuple[int, int]]:
    rows = await trail.database.all("SELECT * FROM audit.seals ORDER BY number")
    before, this = Seal.read(rows[number - 2]), Seal.read(rows[number - 1])
    start = (before.through_xid, before.through_seq)
    return _Extent(this.era, this.floor_seq, start), (this.through_xid, this.through_seq)


async def test_months_that_were_dropped_are_not_looked_at_and_the_rest_of_their_batches_is(trail: Trail) -> None:
    old = after(THIS, -2)
    await trail.record(old, old, NOW, NOW)
    await trail.partitions.prepare(keep=timedelta(days=400))
    chain = trail.chain(settled_after=AT_ONCE, batch=3)
    await seal_all(chain)
    announced = await chain.seal(drop_before=THIS)
    assert announced is not None
    assert (announced.rows, announced.dropped_before) == (0, THIS)
    await trail.partitions.drop(before=THIS)
    found = await chain.verify()
    assert (found.rows, found.first, found.dropped_before, found.bad) == (2, 1, THIS, None)
    assert await chain.seal(drop_before=THIS) is None
    await trail.run("DELETE FROM audit.executions WHERE seq = 3")
    assert told(await chain.verify()) == (1, f"1 of 1 rows of {THIS:%Y-%m} are missing")


async def test_a_month_that_was_dropped_unannounced_shows(trail: Trail) -> None:
    chain = await sealed(trail)
    await trail.partitions.drop(before=after(THIS))
    bad = (await chain.verify()).bad
    assert bad is not None
    assert (bad.number, bad.reason) == (1, f"4 of 4 rows of {THIS:%Y-%m} are missing")


async def test_moving_rows_out_of_the_default_partition_breaks_no_seal(trail: Trail) -> None:
    await trail.run(f"DROP TABLE audit.executions_{THIS:%Y_%m}")
    chain = await sealed(trail)
    await trail.partitions.prepare(keep=timedelta(days=400))
    assert (await chain.verify()).bad is None


async def test_rows_after_a_dump_was_restored_elsewhere_are_covered(trail: Trail) -> None:
    """Where a dump is restored, transactions are counted from another number; the sequence goes on."""
    await trail.record(*[NOW] * 6)
    await trail.run("UPDATE audit.executions SET recorded_xid = recorded_xid + 1000000000")
    chain = trail.chain(settled_after=AT_ONCE, batch=4)
    # What the old cluster had sealed before the dump, its counter then being ahead of all.
    first = await chain._write(
        replace(await _unwritten(chain), sealed_at=NOW, number=1),
    )
    assert first.rows == 4
    await trail.record(*[NOW] * 3)
    seals = await seal_all(chain)
    assert [(seal.era, seal.rows) for seal in seals] == [(0, 2), (1, 3)]
    await trail.record(NOW)
    assert [(seal.era, seal.rows) for seal in await seal_all(chain)] == [(1, 1)]
    found = await chain.verify()
    assert (found.seals, found.rows, found.bad) == (4, 10, None)
    assert await chain.unsealed() == 0
    await trail.run("UPDATE audit.executions SET method = 'x' WHERE seq = 8")
    assert told(await chain.verify()) == (3, f"rows of {THIS:%Y-%m} were changed")


async def _unwritten(chain: AuditChain) -> Seal:
    extent = _Extent(0, 0, (0, 0))
    through = await chain._next(extent, restored=True)
    assert through is not None
    parts = await chain._parts(extent, through)
    return replace(
        NO_SEAL,
        through_xid=through[0],
        through_seq=through[1],
        max_seq=max(part["max_seq"] for part in parts),
        parts=tuple((part["month"], part["rows"], part["hash"]) for part in parts),
        previous_hash=NO_SEAL.hash,
    )


async def test_of_two_that_seal_at_once_no_row_is_sealed_twice(trail: Trail) -> None:
    await trail.record(*[NOW] * 20)
    chain = trail.chain(settled_after=AT_ONCE, batch=2)
    for _ in range(10):
        await asyncio.gather(*(chain.seal() for _ in range(3)), return_exceptions=True)
    await seal_all(chain)
    found = await chain.verify()
    assert (found.rows, found.bad) == (20, None)


async def test_sealing_goes_on_beside_writers(trail: Trail) -> None:
    chain = trail.chain(settled_after=AT_ONCE, batch=7)
    stop = asyncio.Event()

    async def write() -> int:
        written = 0
        while not stop.is_set():
            await trail.record(NOW)
            written += 1
        return written

    writers = [asyncio.create_task(write()) for _ in range(8)]
    for _ in range(25):
        await chain.seal()
    stop.set()
    written = sum(await asyncio.gather(*writers))
    await seal_all(chain)
    found = await chain.verify()
    assert (found.rows, found.bad) == (written, None)


_SEAL = Seal(3, 0, 0, 7, 9, 9, (("2026-11", 2, "ab"),), None, b"p", NOW)
_OTHER = st.one_of(
    st.builds(lambda number: {"number": number}, st.integers().filter(lambda number: number != 3)),
    st.builds(lambda xid: {"through_xid": xid}, st.integers().filter(lambda xid: xid != 7)),
    st.builds(lambda seq: {"max_seq": seq}, st.integers().filter(lambda seq: seq != 9)),
    st.builds(lambda rows: {"parts": (("2026-11", rows, "ab"),)}, st.integers().filter(lambda rows: rows != 2)),
    st.builds(lambda text: {"parts": (("2026-11", 2, text),)}, st.text().filter(lambda text: text != "ab")),
    st.builds(lambda at: {"dropped_before": at}, st.datetimes(timezones=st.just(UTC))),
    st.builds(lambda past: {"previous_hash": past}, st.binary().filter(lambda past: past != b"p")),
)


@given(_OTHER)
def test_no_field_can_change_without_the_hash(changes: dict[str, object]) -> None:
    assert replace(_SEAL, **changes).digest() != _SEAL.digest()  # type: ignore[arg-type]
