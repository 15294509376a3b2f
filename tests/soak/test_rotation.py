"""Keys are rotated under load while workers are killed with -9: no call fails, nothing is left or lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.keys import ROTATE_KEYS, KeyName, RotateKeys
from integration_service.contracts.names import control_queue
from integration_service.contracts.wire import JsonObject
from integration_service.storage.credentials import CREDENTIAL_COLUMNS, Credentials, StoredCredential
from integration_service.storage.database import Database
from integration_service.storage.key_rotation import key_use
from integration_service.storage.vault.key_file import KeyringFile, add_key
from integration_service.storage.vault.keyring import generate_keyring_file
from tests.credential_rows import add_credentials
from tests.fresh_database import fresh_database
from tests.soak.conftest import Measured
from tests.waiting import eventually
from tests.world import World, definition_file, method

pytestmark = pytest.mark.slow

_SECRET = "planted-key-of-the-rotation"
_WORKERS = 2


@dataclass
class Fleet:
    """Two worker processes on a queue of their own; whichever is killed is started again."""

    environment: dict[str, str]
    running: list[asyncio.subprocess.Process] = field(default_factory=list)
    kills: int = 0

    async def start(self) -> None:
        self.running.append(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "integration_service.worker"),
                env=self.environment,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )

    async def kill(self, which: int) -> None:
        victim = self.running.pop(which % len(self.running))
        for child in psutil.Process(victim.pid).children(recursive=True):
            child.kill()  # the sandbox of its transforms
        victim.kill()
        assert await victim.wait() == -signal.SIGKILL
        self.kills += 1
        await self.start()

    @classmethod
    @asynccontextmanager
    async def serving(cls, environment: dict[str, str]) -> AsyncIterator[Fleet]:
        fleet = cls(environment)
        try:
            for _ in range(_WORKERS):
                await fleet.start()
            yield fleet
        finally:
            for process in fleet.running:
                process.kill()
                await process.wait()


@dataclass
class Load:
    """Calls of random instances, one after another, until it is over."""

    integrations: Integrations
    ids: list[str]
    moments: random.Random
    calls: int = 0
    over: bool = False

    async def run(self) -> None:
        while not self.over:
            call = MethodCall(instance_id=self.moments.choice(self.ids), method="get", params={"id": 1})
            assert (await self.integrations.call(call)).data == {"ok": True}
            self.calls += 1


async def test_a_rotation_under_load_and_kills(world: World, full: bool, measured: Measured, tmp_path: Path) -> None:
    count, kills, callers = (100_000, 20, 8) if full else (500, 1, 3)
    moments, queue = random.Random(1905), f"rotation-{uuid.uuid4().hex[:8]}"
    path = tmp_path / "keyring.json"
    generate_keyring_file(path)
    keyring = KeyringFile.open(path)

    async def guarded(request: Request) -> Response:
        return JSONResponse({"ok": True}, 200 if request.headers.get("x-key") == _SECRET else 401)

    world.upstream.handler = guarded
    # Every request that a killed worker had under way is made again.
    patient = {"retryConfig": {"maxRetries": 100, "backoffMultiplier": 1, "initialDelayMs": 200, "maxDelayMs": 200}}
    file = definition_file("many", authType="api_key", methods=[method("get", "GET", "/things/{id}", **patient)])
    payload: JsonObject = {"type": "api_key", "apiKey": {"key": _SECRET, "headerOrParam": "X-Key", "inHeader": True}}
    async with fresh_database(world.stack) as fresh, fresh.login("worker") as url, Database(fresh.url) as database:
        ids = await add_credentials(
            database, keyring, count, file=file, payload=payload, config={"url": world.upstream.url}
        )
        environment = {
            **os.environ,
            **world.stack.environment,
            "INTEGRATIONS_DATABASE_URL": url,
            "INTEGRATIONS_KEYRING": str(path),
            "INTEGRATIONS_RESULTS_KEYRING": "",
            "INTEGRATIONS_TASK_QUEUE": queue,
            "INTEGRATIONS_WORKER_LISTEN": "",
        }
        load = Load(Integrations(world.temporal, task_queue=queue), ids, moments)
        async with Fleet.serving(environment) as fleet:
            calling = [asyncio.create_task(load.run()) for _ in range(callers)]
            await eventually(lambda: _reached(load, callers), within_s=60)
            new = add_key(path, activate=True)
            began = time.monotonic()
            name = KeyName(id=new.key_id, version=new.version)
            handle = await world.temporal.start_workflow(
                ROTATE_KEYS,
                RotateKeys(active=name, settle_ms=20_000 if full else 1_000).to_wire(),
                id=f"rotate-{queue}",
                task_queue=control_queue(queue),
            )
            for number in range(kills):
                # Each after the one before has cost something, and while there is something left to do.
                await eventually(
                    partial(_come_as_far, database, new.version, count * number // (kills + 1)), within_s=120
                )
                await asyncio.sleep(moments.uniform(0, 0.5))
                await fleet.kill(moments.randrange(_WORKERS))
            done = await handle.result()
            took = time.monotonic() - began
            seen = load.calls
            await eventually(lambda: _reached(load, seen + callers), within_s=60)
            load.over = True
            await asyncio.gather(*calling)
        assert [use.key for use in await key_use(database)] == [new]
        assert done["broken"] == 0
        await _all_open(database, keyring)
        logged = await database.one("SELECT count(*) AS rows FROM audit.decrypts WHERE reason = 'call'", {})
        assert logged is not None
        assert logged["rows"] >= load.calls
        assert fleet.kills == kills
        measured(
            f"{count} credentials in {took:.1f} s ({count / took:.0f} rows/s, settling included), {kills} kills, "
            f"{load.calls} calls meanwhile, none failed"
        )


async def _reached(load: Load, calls: int) -> bool:
    return load.calls >= calls


async def _come_as_far(database: Database, version: int, rows: int) -> bool:
    """Whether the rotation has done so many."""
    row = await database.one(
        "SELECT count(*) AS rows FROM vault.credentials WHERE key_version = %(version)s", {"version": version}
    )
    assert row is not None
    return int(row["rows"]) >= rows


async def _all_open(database: Database, keyring: KeyringFile) -> None:
    credentials = Credentials(database, keyring)
    columns, after, opened = ", ".join(CREDENTIAL_COLUMNS), uuid.UUID(int=0), 0
    while rows := await database.all(
        f"SELECT {columns} FROM vault.credentials WHERE id > %(after)s ORDER BY id LIMIT 5000", {"after": after}
    ):
        after = rows[-1]["id"]
        for row in rows:
            credential = await credentials.open(StoredCredential(dict(row)))
            assert credential.api_key is not None
            assert credential.api_key.key == _SECRET
            opened += 1
    assert opened
