"""`integrations dev` as a process: READY, restart on the same data, Ctrl-C, kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from temporalio.client import Client

from integration_service.contracts.wire import JsonObject
from integration_service.devstack.placing import external_folder
from integration_service.devstack.running import find_stack
from integration_service.plugin import IntegrationClientPlugin
from integration_service.storage.database import Database
from tests.upstream import Upstream
from tests.world import World, definition_file

_PORTS = ("--temporal-port", "0", "--ui-port", "0", "--gateway-port", "0", "--postgres-port", "0")


@pytest.fixture
def data_dir() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="integrations dev ")).resolve()
    folder.rmdir()
    return folder


async def _dev(data_dir: Path, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from integration_service.cli.main import main; main()", "dev"),
        *("--data-dir", str(data_dir), *(options or _PORTS)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


@asynccontextmanager
async def _ready(data_dir: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, JsonObject]]:
    process = await _dev(data_dir)
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 90)).decode()
        assert line.startswith("READY {"), (await process.communicate())[1]
        yield process, json.loads(line.removeprefix("READY "))
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 60)


def _alive(data_dir: Path) -> list[str]:
    """Processes that name the data directory, or Postgres's files of it, in their command or environment."""
    marks = (str(data_dir), str(external_folder(data_dir)))
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + process.environ().get("INTEGRATIONS_KEYRING", "") + process.cwd()
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and any(mark in text for mark in marks):
            found.append(f"{process.pid} {text[:200]}")
    return found


async def _gone(data_dir: Path) -> list[str]:
    for _ in range(300):
        if not _alive(data_dir):
            return []
        await asyncio.sleep(0.1)
    return _alive(data_dir)


async def test_data_survive_a_restart_and_ctrl_c_leaves_no_process(
    data_dir: Path, upstream: Upstream, name: str
) -> None:
    async with _ready(data_dir) as (process, ready):
        assert set(ready) == {"temporal", "namespace", "taskQueue", "gateway", "ui", "database", "postgresData"}
        instance = await (await _world(ready, upstream)).instance(definition_file(name))
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to the whole foreground group
        await asyncio.wait_for(process.wait(), 60)
        assert process.returncode == 0
    assert await _gone(data_dir) == []
    assert find_stack(data_dir) is None
    async with _ready(data_dir) as (_, ready):
        world = await _world(ready, upstream)
        assert (await world.connection(instance).status())["status"] == "CONNECTED"
        assert (await world.call(instance, "get", {"id": 1})).data == {"ok": True}
    assert await _gone(data_dir) == []


async def test_kill_9_of_the_parent_leaves_no_process(data_dir: Path) -> None:
    async with _ready(data_dir) as (process, _):
        assert len(_alive(data_dir)) > 4
        process.kill()
        await process.wait()
    assert await _gone(data_dir) == []


async def test_a_taken_port_is_named(data_dir: Path, upstream: Upstream) -> None:
    port = upstream.url.rsplit(":", 1)[1]
    process = await _dev(data_dir, *_PORTS[2:], "--temporal-port", port)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert f"port {port}" in err.decode().splitlines()[-1]
    assert "--temporal-port" in err.decode().splitlines()[-1]


async def _world(ready: JsonObject, upstream: Upstream) -> World:
    client = await Client.connect(ready["temporal"], plugins=[IntegrationClientPlugin()])
    database = Database(ready["database"], max_connections=2)
    await database.open()
    return World(stack=None, database=database, temporal=client, upstream=upstream)  # type: ignore[arg-type]


def test_a_demo_ends_with_exit_0_and_leaves_nothing(tmp_path: Path) -> None:
    import subprocess

    command = [sys.executable, "-c", "from integration_service.cli.main import main; main()", "demo", "--json"]
    before = set(Path(tempfile.gettempdir()).glob("integrations-demo-*"))
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    steps = json.loads(ran.stdout)["steps"]
    outcomes = {step["what"]: step["outcome"] for step in steps}
    links = [step.get("link", "").rsplit("/", 1)[-1].split(":")[0] for step in steps[-3:]]
    assert links == ["call", "oauth-refresh", "call"]
    assert "/workflows/connection:" in steps[-4]["link"]
    assert outcomes["submit a wrong password"] == "AUTH_ERROR"
    assert outcomes["submit the right password, sealed"] == "CONNECTED"
    assert outcomes["kinto.list_records"].endswith("record read back: written by a workflow")
    assert outcomes["the token is refreshed by its workflow, unasked"].startswith("generation ")
    # Another demo that ran beside this one may have taken its own away meanwhile.
    assert set(Path(tempfile.gettempdir()).glob("integrations-demo-*")) - before == set()
