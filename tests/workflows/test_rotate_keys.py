"""`RotateKeys` with real workers on a database and a keyring of its own."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Replayer, Worker

from integration_service.activities.parts import Parts
from integration_service.contracts.errors import from_failure
from integration_service.contracts.keys import ROTATE_KEYS, KeyName, RotateKeys
from integration_service.contracts.names import control_queue
from integration_service.devstack.stack import Stack
from integration_service.plugin import IntegrationPlugin
from integration_service.settings import Settings
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database
from integration_service.storage.key_rotation import key_use
from integration_service.storage.vault.key_file import KeyringFile, add_key
from integration_service.storage.vault.keyring import KeyRef, generate_keyring_file
from integration_service.workflows.rotate_keys import RotateKeysWorkflow
from tests.credential_rows import add_credentials
from tests.fresh_database import fresh_database
from tests.skipping import skipping_server
from tests.waiting import eventually


@dataclass
class Place:
    database: Database
    client: Client
    path: Path
    keyring: KeyringFile
    queue: str
    settings: Settings

    async def rotate(self, to: KeyRef, **more: Any) -> dict[str, Any]:
        name = KeyName(id=to.key_id, version=to.version)
        order = RotateKeys(active=name, results=name, settle_ms=more.pop("settle_ms", 100))
        answer: dict[str, Any] = await self.client.execute_workflow(
            ROTATE_KEYS, order.to_wire(), id=f"rotate-{self.queue}", task_queue=control_queue(self.queue)
        )
        return answer

    async def undecryptable(self) -> int:
        credentials, failed = Credentials(self.database, self.keyring), 0
        for row in await self.database.all("SELECT instance_id FROM vault.credentials"):
            stored = await credentials.load(str(row["instance_id"]))
            assert stored is not None
            failed += (await credentials.open(stored)).custom is None
        return failed


@pytest.fixture
async def place(stack: Stack, temporal: Client, tmp_path: Path) -> AsyncIterator[Place]:
    path, queue = tmp_path / "keyring.json", f"rotate-{uuid.uuid4().hex[:8]}"
    generate_keyring_file(path)
    async with fresh_database(stack) as fresh, fresh.login("worker") as url, Database(fresh.url) as database:
        settings = Settings(database_url=url, keyring=str(path), task_queue=queue)
        async with Worker(temporal, task_queue=queue, plugins=[IntegrationPlugin(settings)]):
            yield Place(database, temporal, path, KeyringFile.open(path), queue, settings)


async def test_a_rotation_ends_when_nothing_is_under_an_old_key_and_replays(place: Place) -> None:
    await add_credentials(place.database, place.keyring, 600)
    new = add_key(place.path, activate=True)
    assert await place.rotate(new) == {"rewrapped": 601, "broken": 0}  # the seal key is one
    assert [use.key for use in await key_use(place.database)] == [new]
    assert await place.undecryptable() == 0
    history = await place.client.get_workflow_handle(f"rotate-{place.queue}").fetch_history()
    assert await place.rotate(new) == {"rewrapped": 0, "broken": 0}
    rows = await place.database.all("SELECT reason, worker, workflow_id FROM audit.decrypts WHERE kind = 'data_key'")
    assert len(rows) == 4
    assert {row["reason"] for row in rows} == {"rotate"}
    assert {row["workflow_id"] for row in rows} == {f"rotate-{place.queue}"}
    await Replayer(workflows=[], plugins=[IntegrationPlugin()]).replay_workflow(history)
    if folder := os.environ.get("STORE_HISTORIES"):
        stored = {"workflowId": f"rotate-{place.queue}", "history": history.to_json_dict()}
        (Path(folder) / "RotateKeys-rewrapped.json").write_text(json.dumps(stored, indent=1) + "\n")
    for event in history.events:
        for entry in json.loads(place.path.read_text())["keys"]:
            assert entry["key"] not in str(event)


async def test_a_row_that_does_not_open_is_told_and_does_not_hold_it_up(place: Place) -> None:
    [broken, *_] = await add_credentials(place.database, place.keyring, 5)
    await place.database.one(
        "UPDATE vault.credentials SET wrapped_key = wrapped_key || '\\x00' WHERE instance_id = %(id)s", {"id": broken}
    )
    assert await place.rotate(add_key(place.path, activate=True)) == {"rewrapped": 5, "broken": 1}


async def test_rows_under_a_key_that_nobody_holds_end_it_with_their_count(place: Place) -> None:
    """After all others, and after looking for the key again: about a minute, which this server skips."""
    [lost, *_] = await add_credentials(place.database, place.keyring, 5)
    await place.database.one("UPDATE vault.credentials SET key_version = 77 WHERE instance_id = %(id)s", {"id": lost})
    parts = Parts.build(place.settings, task_queue=place.queue)
    async with (
        skipping_server() as server,
        parts.opened(),
        Worker(
            server.client,
            task_queue=control_queue(place.queue),
            workflows=[RotateKeysWorkflow],
            activities=parts.control_activities,
            interceptors=parts.interceptors,
        ),
    ):
        with pytest.raises(WorkflowFailureError) as failed:
            await replace(place, client=server.client).rotate(add_key(place.path, activate=True))
    error = from_failure(failed.value.cause)
    assert error is not None
    assert (error.code, error.details["rows"]) == ("KEY_UNAVAILABLE", {"vault.credentials": 1})


async def test_a_worker_that_has_not_got_the_key_yet_waits_for_it(place: Place) -> None:
    """As where each host has a copy of the file: the rotation waits, the calls go on under the old key."""
    await add_credentials(place.database, place.keyring, 5)
    new = KeyRef(place.keyring.active.key_id, 2)
    rotation = asyncio.create_task(place.rotate(new))

    async def refused() -> bool:
        handle = place.client.get_workflow_handle(f"rotate-{place.queue}")
        try:
            pending = (await handle.describe()).raw_description.pending_activities
        except Exception:
            return False
        return any(one.last_failure.application_failure_info.type == "KEY_UNAVAILABLE" for one in pending)

    await eventually(refused)
    assert add_key(place.path, activate=True) == new
    assert (await rotation)["rewrapped"] == 6
