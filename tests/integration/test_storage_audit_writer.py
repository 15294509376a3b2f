"""Rows that share a commit: each writer learns of its own, one bad row fails alone, scopes stay apart."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.audit import AuditLog
from integration_service.storage.audit_writer import BATCH
from integration_service.storage.database import Database
from tests.audit_rows import Trail, attempt

NOW = datetime.now(UTC)


async def commits(trail: Trail) -> int:
    row = await trail.database.one("SELECT count(DISTINCT recorded_xid) AS commits FROM audit.executions", {})
    return int(row["commits"]) if row else 0


async def test_many_at_once_share_few_commits_and_each_is_there(trail: Trail) -> None:
    log, rows = AuditLog(trail.database), [attempt(NOW) for _ in range(3 * BATCH)]
    await asyncio.gather(*(log.record(row, settles_intent=False) for row in rows))
    found = await trail.database.all("SELECT execution_key::text AS key FROM audit.executions")
    assert {row["key"] for row in found} == {row.execution_key for row in rows}
    assert await commits(trail) < 10


async def test_one_after_the_other_each_has_its_own_commit(trail: Trail) -> None:
    await trail.record(NOW, NOW, NOW)
    assert await commits(trail) == 3


async def test_every_kind_of_value_arrives_as_it_was(trail: Trail) -> None:
    log = AuditLog(trail.database)
    kinds: list[dict[str, Any]] = [
        {"code": None, "http_status": None, "correlation_id": None, "workflow_id": None},
        {"code": "HTTP_500", "status": "FAILED", "http_status": 500, "correlation_id": 'a "quoted", {braced} \\ text'},
        {"correlation_id": "", "request_bytes": 2**40, "response_bytes": 0, "method": "NULL"},
    ]
    rows = [attempt(NOW, **kind) for kind in kinds]
    await asyncio.gather(*(log.record(row, settles_intent=False) for row in rows))
    found = {row["execution_key"]: row for row in await log.tail(limit=10)}
    for row, kind in zip(rows, kinds, strict=True):
        stored = found[uuid.UUID(row.execution_key)]
        assert {name: stored[name] for name in kind} == kind


async def test_a_row_that_cannot_be_stored_fails_alone(trail: Trail) -> None:
    log = AuditLog(trail.database)
    rows = [attempt(NOW, correlation_id="a\x00b" if number == 3 else None) for number in range(8)]
    ends = await asyncio.gather(*(log.record(row, settles_intent=False) for row in rows), return_exceptions=True)
    assert [number for number, end in enumerate(ends) if end is not None] == [3]
    assert isinstance(ends[3], IntegrationError)
    assert ends[3].code == ErrorCode.VALIDATION_ERROR
    assert len(await log.tail(limit=20)) == 7


async def test_intents_end_with_their_own_rows_only(trail: Trail) -> None:
    log, rows = AuditLog(trail.database), [attempt(NOW) for _ in range(20)]
    await asyncio.gather(*(log.intend(row.execution_key) for row in rows))
    await asyncio.gather(*(log.record(row, settles_intent=number % 2 == 0) for number, row in enumerate(rows)))
    assert [await log.intend(row.execution_key) for row in rows] == [number % 2 == 0 for number in range(20)]


async def test_the_same_row_many_times_at_once_is_one(trail: Trail) -> None:
    log, row = AuditLog(trail.database), attempt(NOW)
    await asyncio.gather(*(log.record(row, settles_intent=True) for _ in range(30)))
    assert len(await log.tail(limit=20)) == 1


async def test_rows_of_several_scopes_go_apart(trail: Trail) -> None:
    log = AuditLog(trail.database)
    rows = [attempt(NOW, scope=f"s{number % 3}") for number in range(30)]
    await asyncio.gather(*(log.record(row, settles_intent=False) for row in rows))
    mixed = await trail.database.all(
        "SELECT recorded_xid FROM audit.executions GROUP BY 1 HAVING count(DISTINCT scope) > 1"
    )
    assert mixed == []
    assert len(await log.tail(limit=50)) == 30


async def test_who_gives_up_waiting_takes_nobody_else_along(trail: Trail) -> None:
    log, rows = AuditLog(trail.database), [attempt(NOW) for _ in range(10)]
    writers = [asyncio.create_task(log.record(row, settles_intent=False)) for row in rows]
    await asyncio.sleep(0)  # they stand in line
    writers[0].cancel()
    ends = await asyncio.gather(*writers, return_exceptions=True)
    assert ends[1:] == [None] * 9
    assert {row.execution_key for row in rows[1:]} <= {str(row["execution_key"]) for row in await log.tail(limit=20)}


async def test_when_the_database_is_away_each_is_told(trail: Trail) -> None:
    patience = timedelta(milliseconds=200)
    async with Database("postgresql://nobody@127.0.0.1:1/nothing", patience=patience) as away:
        log = AuditLog(away)
        ends = await asyncio.gather(
            *(log.record(attempt(NOW), settles_intent=False) for _ in range(5)), return_exceptions=True
        )
    assert all(isinstance(end, IntegrationError) and end.code == ErrorCode.UNAVAILABLE for end in ends)
    assert len({id(end) for end in ends}) == 5
