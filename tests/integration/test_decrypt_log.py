"""Every decrypt leaves a row: who, in which workflow, why, which secret, under which key. Never the secret."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.storage.database import Database
from integration_service.storage.decrypt_log import INSERT_DECRYPTS, DecryptLog, decrypt_parameters
from integration_service.storage.vault.envelope import Context, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyRef, Keyring
from integration_service.storage.vault.openings import Opening, Use, current_openings, opening_for
from tests.upstream import json_answer
from tests.waiting import eventually
from tests.world import World, definition_file, method

USE = Use(worker="w@h", reason="refresh", activity_type="RefreshToken", activity_id="1", attempt=2, workflow_id="wf")


async def rows(database: Database, instance_id: str) -> list[JsonObject]:
    found = await database.all(
        "SELECT * FROM audit.decrypts WHERE instance_id = %(id)s ORDER BY id", {"id": instance_id}
    )
    return [dict(row) for row in found]


async def test_a_call_and_its_connection_leave_rows(world: World, keyring: Keyring, name: str) -> None:
    world.upstream.answers = [json_answer({"ok": True})] * 3
    await world.publish(
        definition_file(name, authType="api_key", connectionTest="get", methods=[method("get", "GET", "/things/1")])
    )
    instance = await world.connect(name)
    credential = {"type": "api_key", "apiKey": {"key": "planted-0123456789", "headerOrParam": "X-K", "inHeader": True}}
    assert (await world.submit(instance, credential))["status"] == "CONNECTED"
    await world.call(instance, "get")

    async def all_there() -> list[JsonObject] | None:
        found = await rows(world.database, instance["id"])
        return found if {row["reason"] for row in found} >= {"test", "call"} else None

    found = await eventually(all_there)
    [of_call] = [row for row in found if row["reason"] == "call"]
    assert (of_call["kind"], of_call["generation"], of_call["scope"]) == ("credential", 1, "global")
    assert KeyRef(of_call["key_id"], of_call["key_version"]) == keyring.active
    assert of_call["activity_type"] == f"{name}.get"
    assert of_call["worker"]
    [execution] = [row for row in await world.audit(instance) if row["workflow_id"] == of_call["workflow_id"]]
    assert (execution["run_id"], execution["activity_id"]) == (of_call["run_id"], of_call["activity_id"])
    # The seal that the credential came in was opened too, for storing it.
    stored = await world.database.all("SELECT * FROM audit.decrypts WHERE kind = 'seal_key' AND reason = 'store'")
    assert f"connection:{instance['id']}" in {row["workflow_id"] for row in stored}
    assert "planted" not in str(found) + str(stored)


async def test_a_cached_call_leaves_rows_too(world: World, name: str) -> None:
    """Its answer comes from `resolve`, which opens the credential like an attempt and is recorded like one."""
    world.upstream.answers = [json_answer({"ok": True})]
    await world.publish(
        definition_file(name, authType="api_key", methods=[method("get", "GET", "/things/1", cache={"ttlMs": 60_000})])
    )
    instance = await world.connect(name)
    credential = {"type": "api_key", "apiKey": {"key": "planted-0123456789", "headerOrParam": "X-K", "inHeader": True}}
    await world.submit(instance, credential)
    await world.call(instance, "get")
    assert (await world.call(instance, "get")).cached
    [fetched, cached] = await world.audit(instance)
    assert (cached["status"], cached["http_status"], cached["attempt"]) == ("SUCCEEDED", None, 1)
    assert cached["execution_key"] != fetched["execution_key"]
    [row] = [row for row in await rows(world.database, instance["id"]) if row["run_id"] == cached["run_id"]]
    assert (row["reason"], row["kind"], row["activity_id"]) == ("call", "credential", cached["activity_id"])


async def test_a_secret_is_handed_out_only_after_its_row_is_written(database: Database, keyring: Keyring) -> None:
    instance = str(uuid.uuid4())
    context = Context("credential", ("s", instance, str(uuid.uuid4()), "custom", "1", "7"))
    envelope = await encrypt(keyring, b"plain", context)
    with opening_for(USE, write=DecryptLog(database).write):
        assert await decrypt(keyring, envelope, context) == b"plain"
    [row] = await rows(database, instance)
    told = {name: row[name] for name in ("reason", "worker", "attempt", "workflow_id", "generation")}
    assert told == {"reason": "refresh", "worker": "w@h", "attempt": 2, "workflow_id": "wf", "generation": 7}

    async def fails(_: list[Opening]) -> None:
        raise IntegrationError(ErrorCode.UNAVAILABLE, "the database does not answer")

    with opening_for(USE, write=fails), pytest.raises(IntegrationError):
        await decrypt(keyring, envelope, context)
    assert current_openings() is None


async def test_a_call_keeps_its_rows_for_another_statement(database: Database, keyring: Keyring) -> None:
    """As the execution log writes them: one round trip for both; no opening, no row."""
    instance = str(uuid.uuid4())
    context = Context("credential", ("s", instance, str(uuid.uuid4()), "custom", "1", "1"))
    envelope = await encrypt(keyring, b"plain", context)
    with opening_for(USE) as openings:
        for _ in range(2):
            await decrypt(keyring, envelope, context)
        assert await rows(database, instance) == []
        taken = openings.take()
        openings.give_back(taken)
        assert openings.take() == taken
        assert openings.take() == []
    for openings_written in (taken, []):
        row = await database.one(
            f"WITH decrypts AS ({INSERT_DECRYPTS}) SELECT 1 AS done", decrypt_parameters(openings_written)
        )
        assert row == {"done": 1}
    assert len(await rows(database, instance)) == 2


async def test_what_is_no_secret_is_not_logged(keyring: Keyring) -> None:
    context = Context("response-cache", ("key",))
    envelope = await encrypt(keyring, b"body", context)
    with opening_for(USE) as openings:
        await decrypt(keyring, envelope, context)
        assert openings.take() == []


async def test_old_rows_are_pruned_the_oldest_first(database: Database) -> None:
    instance = str(uuid.uuid4())
    log = DecryptLog(database)
    opening = Opening(USE, "credential", ("s", instance, instance, "custom", "1", "1"), KeyRef("k", 1))
    await log.write([opening] * 5)
    await database.one(
        "UPDATE audit.decrypts SET opened_at = now() - interval '400 days' WHERE instance_id = %(id)s AND id <> "
        "(SELECT max(id) FROM audit.decrypts WHERE instance_id = %(id)s)",
        {"id": instance},
    )
    assert await log.prune(timedelta(days=365), limit=3) == 3
    assert await log.prune(timedelta(days=365)) == 1
    assert len(await rows(database, instance)) == 1
