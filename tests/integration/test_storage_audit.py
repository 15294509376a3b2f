"""The execution log, and intents to send: written once, settled together."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.wire import parse
from integration_service.storage.audit import AuditLog
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from tests.integration.test_storage_instances import execution
from tests.world import definition_file


@pytest.fixture
def log(database: Database) -> AuditLog:
    return AuditLog(database)


@pytest.fixture
async def instance(database: Database, name: str) -> str:
    definition = await Definitions(database).apply(parse(DefinitionFile, definition_file(name)), publish=True)
    id_ = str(uuid.uuid4())
    await Instances(database).add(ConnectInstanceInput(instance_id=id_, definition=name, name=f"i {id_}"), definition)
    return id_


async def usage(database: Database, instance: str) -> datetime | None:
    return (await Instances(database).get(instance)).last_used_at


async def age_usage(database: Database, instance: str, seconds: int) -> None:
    await database.one(
        """UPDATE integrations.instance_usage SET last_used_at = now() - make_interval(secs => %(seconds)s)
            WHERE instance_id = %(id)s""",
        {"id": instance, "seconds": seconds},
    )


async def test_an_attempt_recorded_twice_is_one_row(log: AuditLog, instance: str) -> None:
    attempt = replace(execution(instance), code="HTTP_503", http_status=503, status="FAILED", correlation_id="c")
    await log.record(attempt, settles_intent=False)
    await log.record(attempt, settles_intent=False)
    await log.record(replace(attempt, status="SUCCEEDED"), settles_intent=False)
    (row,) = await log.tail(limit=10, instance_id=instance)
    assert (row["status"], row["code"], row["http_status"], row["correlation_id"]) == ("FAILED", "HTTP_503", 503, "c")


async def test_every_attempt_has_its_own_row_newest_last(log: AuditLog, instance: str) -> None:
    first = execution(instance)
    for number in (1, 2, 3):
        await log.record(replace(first, attempt=number), settles_intent=False)
    later = replace(execution(instance), scheduled_at=first.scheduled_at + timedelta(seconds=5))
    await log.record(later, settles_intent=False)
    rows = await log.tail(limit=10, instance_id=instance)
    assert [row["attempt"] for row in rows] == [1, 2, 3, 1]
    assert [row["attempt"] for row in await log.tail(limit=2, instance_id=instance)] == [3, 1]


@pytest.mark.parametrize("year", [2001, 2026, 2099])
async def test_a_row_of_any_month_finds_a_partition(log: AuditLog, instance: str, year: int) -> None:
    when = datetime(year, 5, 6, tzinfo=UTC)
    await log.record(replace(execution(instance), scheduled_at=when), settles_intent=False)
    (row,) = await log.tail(limit=1, instance_id=instance)
    assert row["scheduled_at"] == when


async def test_the_log_is_read_by_scope(log: AuditLog, instance: str, name: str) -> None:
    await log.record(replace(execution(instance), scope=name), settles_intent=False)
    await log.record(execution(instance), settles_intent=False)
    assert [row["scope"] for row in await log.tail(limit=10, scope=name)] == [name]


async def test_an_intent_is_committed_once_until_it_is_settled(log: AuditLog, instance: str) -> None:
    attempt = execution(instance)
    assert await log.intend(attempt.execution_key)
    assert not await log.intend(attempt.execution_key)
    await log.record(attempt, settles_intent=False)
    assert not await log.intend(attempt.execution_key)
    await log.record(replace(attempt, attempt=2), settles_intent=True)
    assert await log.intend(attempt.execution_key)


async def test_settling_again_with_a_row_that_is_there_still_settles(log: AuditLog, instance: str) -> None:
    attempt = execution(instance)
    await log.intend(attempt.execution_key)
    await log.record(attempt, settles_intent=False)
    await log.record(attempt, settles_intent=True)
    assert await log.intend(attempt.execution_key)


async def test_one_executions_end_settles_no_other(log: AuditLog, instance: str) -> None:
    one, other = execution(instance), execution(instance)
    await log.intend(one.execution_key)
    await log.intend(other.execution_key)
    await log.record(one, settles_intent=True)
    assert not await log.intend(other.execution_key)


async def test_of_ten_who_intend_the_same_at_once_one_may(log: AuditLog) -> None:
    key = str(uuid.uuid4())
    assert sorted(await asyncio.gather(*(log.intend(key) for _ in range(10)))) == [False] * 9 + [True]


async def test_the_time_of_use_is_not_rewritten_within_ten_seconds(
    log: AuditLog, database: Database, instance: str
) -> None:
    assert await usage(database, instance) is None
    await log.record(execution(instance), settles_intent=False)
    first = await usage(database, instance)
    assert first is not None
    await log.record(execution(instance), settles_intent=False)
    assert await usage(database, instance) == first
    await age_usage(database, instance, 9)
    aged = await usage(database, instance)
    await log.record(execution(instance), settles_intent=False)
    assert await usage(database, instance) == aged
    await age_usage(database, instance, 11)
    await log.record(execution(instance), settles_intent=False)
    again = await usage(database, instance)
    assert again is not None
    assert again >= first


async def test_use_does_not_touch_the_row_that_has_a_version(log: AuditLog, database: Database, instance: str) -> None:
    before = await Instances(database).get(instance)
    await log.record(execution(instance), settles_intent=False)
    after = await Instances(database).get(instance)
    assert (after.version, after.updated_at) == (before.version, before.updated_at)


async def test_twenty_first_uses_at_once_are_all_recorded(log: AuditLog, database: Database, instance: str) -> None:
    await asyncio.gather(*(log.record(execution(instance), settles_intent=False) for _ in range(20)))
    assert len(await log.tail(limit=50, instance_id=instance)) == 20
    assert await usage(database, instance) is not None


async def test_a_deleted_instances_attempt_is_still_recorded(log: AuditLog) -> None:
    gone = execution(str(uuid.uuid4()))
    await log.record(gone, settles_intent=False)
    assert len(await log.tail(limit=5, instance_id=gone.instance_id)) == 1
