"""Instances in a real Postgres: one writer wins, names are a scope's own, deletion leaves the log."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.definitions import DefinitionFile, IntegrationDefinition
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import (
    ConnectInstanceInput,
    InstanceError,
    IntegrationInstance,
    IntegrationInstanceStatus,
)
from integration_service.contracts.wire import parse
from integration_service.storage.audit import AuditLog, Execution
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.vault.keyring import Keyring
from tests.world import definition_file

Status = IntegrationInstanceStatus


@dataclass
class Place:
    """One definition and what is needed to add instances of it."""

    database: Database
    instances: Instances
    definition: IntegrationDefinition

    async def add(self, name: str | None = None, *, scope: str = "global", **more: Any) -> IntegrationInstance:
        wanted = ConnectInstanceInput(
            instance_id=more.pop("id", str(uuid.uuid4())),
            scope=scope,
            definition=self.definition.name,
            name=name or f"i {uuid.uuid4().hex[:10]}",
            **more,
        )
        return await self.instances.add(wanted, self.definition)

    async def write(self, instance: IntegrationInstance, **changes: Any) -> IntegrationInstance:
        whole = {
            "status": instance.status,
            "error": instance.error,
            "config": instance.config,
            "definition_id": instance.integration_definition_id,
            **changes,
        }
        return await self.instances.update(instance, **whole)


@pytest.fixture
async def place(database: Database, name: str) -> Place:
    definition = await Definitions(database).apply(parse(DefinitionFile, definition_file(name)), publish=True)
    return Place(database, Instances(database), definition)


async def test_a_new_instance_waits_for_its_configuration(place: Place) -> None:
    added = await place.add("Ünï's instance", config={"z": 1, "a": {"b": None}})
    assert (added.status, added.version) == (Status.PENDING_CONFIGURATION, 1)
    assert (added.definition, added.definition_version) == (place.definition.name, "1.0.0")
    assert (added.config, list(added.config)) == ({"z": 1, "a": {"b": None}}, ["z", "a"])
    assert (added.last_used_at, added.last_connected_at, added.error) == (None, None, None)
    assert await place.instances.get(added.id) == added
    assert await place.instances.exists(added.id)


async def test_a_config_that_no_json_can_say_is_refused(place: Place) -> None:
    with pytest.raises(ValueError, match="a number that JSON does not have"):
        await place.add(config={"n": float("nan")})
    added = await place.add()
    with pytest.raises(IntegrationError) as refused:
        await place.write(added, config={"n": float("inf")})
    assert refused.value.code in (ErrorCode.VALIDATION_ERROR, ErrorCode.CONFIG_ERROR)
    assert await place.instances.get(added.id) == added


async def test_an_existing_row_is_adopted_as_it_stands(place: Place) -> None:
    added = await place.add("first")
    changed = await place.write(added, status=Status.CONNECTED, config={"url": "x"})
    assert await place.add("another name", id=added.id, config={"url": "ignored"}) == changed


async def test_an_id_of_another_scope_is_refused(place: Place) -> None:
    added = await place.add()
    with pytest.raises(IntegrationError) as refused:
        await place.add(id=added.id, scope=f"other-{place.definition.name}")
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "scope")


async def test_a_taken_name_is_refused_in_its_scope_only(place: Place) -> None:
    name, scope = f"n {uuid.uuid4().hex[:8]}", f"s-{place.definition.name}"
    await place.add(name)
    with pytest.raises(IntegrationError) as refused:
        await place.add(name)
    assert (refused.value.code, refused.value.path) == (ErrorCode.VALIDATION_ERROR, "name")
    assert (await place.add(name, scope=scope)).scope == scope


async def test_of_ten_who_take_one_name_at_once_one_gets_it(place: Place) -> None:
    name = f"n {uuid.uuid4().hex[:8]}"
    results = await asyncio.gather(*(place.add(name) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(one, IntegrationInstance) for one in results) == 1
    assert {one.code for one in results if isinstance(one, IntegrationError)} == {"VALIDATION_ERROR"}
    assert all(isinstance(one, IntegrationInstance | IntegrationError) for one in results)


async def test_ten_who_start_the_same_instance_at_once_share_its_row(place: Place) -> None:
    id_, name = str(uuid.uuid4()), f"n {uuid.uuid4().hex[:8]}"
    results = await asyncio.gather(*(place.add(name, id=id_) for _ in range(10)))
    assert {one.id for one in results} == {id_}
    assert {one.version for one in results} == {1}


async def test_an_instance_is_found_by_id_and_by_name_within_its_scope(place: Place) -> None:
    scope = f"s-{place.definition.name}"
    added = await place.add("the name", scope=scope)
    for reference in (added.id, "the name"):
        assert await place.instances.find(scope, reference) == added
        assert (await place.instances.for_call(scope, reference)).id == added.id
    assert await place.instances.list(scope=scope) == [added]
    for wrong_scope, reference in (("global", added.id), ("global", "the name"), (scope, "The Name"), (scope, "%")):
        for look in (place.instances.find, place.instances.for_call):
            with pytest.raises(IntegrationError) as refused:
                await look(wrong_scope, reference)
            assert refused.value.code == ErrorCode.INSTANCE_NOT_FOUND


async def test_a_reference_that_no_column_can_hold_names_no_instance(place: Place) -> None:
    for look in (place.instances.find, place.instances.for_call):
        with pytest.raises(IntegrationError) as refused:
            await look("global", "a\x00b")
        assert refused.value.code in (ErrorCode.INSTANCE_NOT_FOUND, ErrorCode.VALIDATION_ERROR)


async def test_a_write_is_seen_and_counts_the_version(place: Place) -> None:
    added = await place.add()
    error = InstanceError(message="wrong", code="CONFIG_ERROR", details={"path": "config.url"})
    written = await place.write(added, status=Status.CONFIG_ERROR, error=error, config={"url": 1})
    assert (written.status, written.error, written.config) == (Status.CONFIG_ERROR, error, {"url": 1})
    assert written.version == added.version + 1
    assert await place.instances.get(added.id) == written
    cleared = await place.write(written, error=None, status=Status.PENDING_AUTHENTICATION)
    assert (await place.instances.get(added.id)).error is None
    assert cleared.version == written.version + 1


async def test_connected_is_stamped_when_it_is_entered(place: Place) -> None:
    first = await place.write(await place.add(), status=Status.CONNECTED)
    assert first.last_connected_at is not None
    stayed = await place.write(first, status=Status.CONNECTED)
    assert stayed.last_connected_at == first.last_connected_at
    left = await place.write(stayed, status=Status.DISCONNECTED)
    assert left.last_connected_at == first.last_connected_at
    again = await place.write(left, status=Status.CONNECTED)
    assert again.last_connected_at is not None
    assert again.last_connected_at > first.last_connected_at


async def test_of_twenty_writes_from_one_version_exactly_one_wins(place: Place) -> None:
    added = await place.add()
    results = await asyncio.gather(
        *(place.write(added, config={"n": number}) for number in range(20)), return_exceptions=True
    )
    won = [one for one in results if isinstance(one, IntegrationInstance)]
    lost = [one for one in results if isinstance(one, IntegrationError)]
    assert (len(won), len(lost)) == (1, 19)
    assert {one.code for one in lost} == {ErrorCode.VERSION_CONFLICT}
    assert [one.details for one in lost] == [{"path": "version", "expected": 1, "current": 2}] * 19
    assert await place.instances.get(added.id) == won[0]


async def test_a_write_to_what_is_gone_finds_nothing(place: Place) -> None:
    added = await place.add()
    await place.instances.delete(added.id)
    with pytest.raises(IntegrationError) as refused:
        await place.write(added)
    assert refused.value.code == ErrorCode.INSTANCE_NOT_FOUND


async def test_deletion_frees_the_name_erases_the_secret_and_leaves_the_log(place: Place, keyring: Keyring) -> None:
    added = await place.add(f"n {uuid.uuid4().hex[:8]}")
    credentials = Credentials(place.database, keyring)
    payload = parse_credential(b'{"type":"custom","custom":{"a":"b"}}')
    await credentials.store(instance_id=added.id, scope="global", payload=payload)
    log = AuditLog(place.database)
    await log.record(execution(added.id), settles_intent=False)
    assert (await place.instances.get(added.id)).last_used_at is not None

    await place.instances.delete(added.id)
    assert not await place.instances.exists(added.id)
    assert await credentials.load(added.id) is None
    usage = await place.database.one(
        "SELECT 1 AS found FROM integrations.instance_usage WHERE instance_id = %(id)s", {"id": added.id}
    )
    assert usage is None
    assert len(await log.tail(limit=5, instance_id=added.id)) == 1
    assert (await place.add(added.name)).id != added.id
    await place.instances.delete(added.id)


def execution(instance_id: str) -> Execution:
    return Execution(
        scheduled_at=datetime.now(UTC),
        execution_key=str(uuid.uuid4()),
        attempt=1,
        scope="global",
        instance_id=instance_id,
        definition="t",
        definition_version="1.0.0",
        method="m",
        workflow_id=None,
        run_id=None,
        activity_id=None,
        status="SUCCEEDED",
        code=None,
        http_status=200,
        duration_ms=1,
        request_bytes=0,
        response_bytes=0,
        correlation_id=None,
    )
