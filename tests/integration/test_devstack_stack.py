"""The whole stack as a process of its own, with stand-ins for worker and gateway: order, ownership, no remains."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from integration_service.devstack import find_stack
from integration_service.devstack.claims import is_held, read_pid
from integration_service.devstack.data_dir import DataDir
from integration_service.devstack.placing import external_folder, remove_external
from integration_service.devstack.waiting import answers_http, until

pytestmark = pytest.mark.slow

CHILDREN = ("postgres", "temporal", "worker", "gateway")
ROOT = Path(__file__).resolve().parents[2]
# What `integrations dev` does, but for the two children.
PROGRAM = '''
import asyncio, json, signal, sys
from pathlib import Path
from integration_service.contracts.errors import IntegrationError
from integration_service.devstack import StackOptions, services
from integration_service.devstack.stack import Stack

WORKER = """
import asyncio, os, signal
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

@workflow.defn(sandboxed=False)
class Nothing:
    @workflow.run
    async def run(self) -> None: pass

@activity.defn
async def nothing() -> None: pass

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    queue = os.environ["INTEGRATIONS_TASK_QUEUE"]
    async with (
        Worker(client, task_queue=queue, workflows=[Nothing], activities=[nothing]),
        Worker(client, task_queue=queue + "-control", workflows=[Nothing], activities=[nothing]),
        Worker(client, task_queue=queue + "-control-tests", activities=[nothing]),
    ):
        await stop.wait()

asyncio.run(main())
"""
GATEWAY = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

host, port = os.environ["INTEGRATIONS_GATEWAY_LISTEN"].split(":")
ThreadingHTTPServer((host, int(port)), Answer).serve_forever()
"""
real = services.service_children

def stand_ins(environment):
    from dataclasses import replace
    worker, gateway = real(environment)
    gateway_code = "raise SystemExit('no gateway today')" if "--broken" in sys.argv else GATEWAY
    return (
        replace(worker, command=(sys.executable, "-c", WORKER)),
        replace(gateway, command=(sys.executable, "-c", gateway_code)),
    )

services.service_children = stand_ins

async def main():
    stop, loop, me = asyncio.Event(), asyncio.get_running_loop(), asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    options = StackOptions(Path(sys.argv[1]), *map(int, sys.argv[2].split(",")))
    stack = Stack(options, on_progress=lambda line: print("PROGRESS", line, flush=True))
    async with stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        print("READY", json.dumps({**stack.ready.to_wire(), "httpApi": stack.http_api}), flush=True)
        await stack.run_until(stop)
    if "--destroy" in sys.argv:
        stack.destroy()

try:
    asyncio.run(main())
except IntegrationError as error:
    print("ERROR", error, flush=True)
    sys.exit(1)
'''


class Dev:
    """The program above, running."""

    def __init__(self, process: subprocess.Popen[str], data_dir: Path) -> None:
        self.process = process
        self.data_dir = DataDir(data_dir)
        self.ready: dict[str, Any] = {}

    def until_line(self, start: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start):
                return line.removeprefix(start).strip()
        raise AssertionError(f"ended without {start}: {self.process.wait()}")

    def until_ready(self) -> dict[str, Any]:
        self.ready = json.loads(self.until_line("READY "))
        return self.ready

    @property
    def ports(self) -> str:
        url = psycopg.conninfo.conninfo_to_dict(self.ready["database"])
        others = (self.ready[name].rsplit(":")[-1] for name in ("temporal", "ui", "gateway"))
        return ",".join([*others, str(url["port"])])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(40)

    async def leaves_nothing(self, within: float = 15) -> None:
        """Claims tell of every descendant, reparented ones too."""

        async def gone() -> bool:
            return not any(is_held(self.data_dir.claim(name)) for name in (*CHILDREN, "initdb"))

        async with asyncio.timeout(within):
            await until(gone)


Start = Callable[..., Dev]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Dev] = []

    def start(
        data_dir: Path, *flags: str, ports: str = "0,0,0,0", command: tuple[str, ...] = (sys.executable,), **popen: Any
    ) -> Dev:
        process = subprocess.Popen(
            [*command, "-c", PROGRAM, str(data_dir), ports, *flags], stdout=subprocess.PIPE, text=True, **popen
        )
        started.append(Dev(process, data_dir))
        return started[-1]

    yield start
    for dev in started:
        if dev.process.poll() is None:
            dev.process.kill()
        dev.process.__exit__(None, None, None)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    remove_external(tmp_path / "data")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def open_or_foreign(folder: Path, uid: int) -> list[Path]:
    """What others may touch, or own, of a folder and all below it."""
    return [path for path in (folder, *folder.rglob("*")) if mode(path) & 0o077 or path.stat().st_uid != uid]


def rows(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (x int)")
        connection.execute("INSERT INTO kept VALUES (1)")
        return connection.execute("SELECT x FROM kept").fetchall()


async def test_a_life_of_a_stack(start: Start, data_dir: Path) -> None:
    foreign = {"TEMPORAL_TLS": "true", "TEMPORAL_PROFILE": "prod", "INTEGRATIONS_KEYRING": "/foreign"}
    dev = start(data_dir, env={**os.environ, **foreign})
    ready = dev.until_ready()
    assert ready["namespace"] == "default"
    assert ready["taskQueue"] == "integrations"
    assert mode(Path(ready["postgresData"])) == 0o700
    assert rows(ready["database"]) == [(1,)]

    found = find_stack(data_dir)
    assert found is not None
    assert found.pid == dev.process.pid
    assert {**found.ready.to_wire(), "httpApi": found.http_api} == ready
    listens = found.environment["INTEGRATIONS_WORKER_LISTEN"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", listens)
    assert found.environment == {
        "INTEGRATIONS_WEB_UI_URL": ready["ui"],
        "INTEGRATIONS_WORKER_LISTEN": listens,
        "INTEGRATIONS_DATABASE_URL": ready["database"],
        "INTEGRATIONS_KEYRING": str(data_dir / "keyring.json"),
        "INTEGRATIONS_RESULTS_KEYRING": str(data_dir / "results-keyring.json"),
        "INTEGRATIONS_PAYLOAD_KEYRING": str(data_dir / "payload-keyring.json"),
        "INTEGRATIONS_GATEWAY_TOKENS": (data_dir / "gateway-token").read_text(),
        "INTEGRATIONS_PUBLIC_URL": ready["gateway"],
        "INTEGRATIONS_GATEWAY_LISTEN": ready["gateway"].removeprefix("http://"),
        "INTEGRATIONS_TASK_QUEUE": "integrations",
        "INTEGRATIONS_EGRESS_ALLOW": "127.0.0.0/8,::1/128",
        "TEMPORAL_ADDRESS": ready["temporal"],
        "TEMPORAL_NAMESPACE": "default",
        "TEMPORAL_CONFIG_FILE": str(data_dir / "temporal.toml"),
    }
    for secret in (
        "stack.json",
        "keyring.json",
        "results-keyring.json",
        "gateway-token",
        "database.json",
        "temporal.db",
    ):
        assert mode(data_dir / secret) == 0o600

    second = start(data_dir)
    assert second.until_line("ERROR ") == (
        f"UNAVAILABLE: {data_dir} is in use by another dev, pid {dev.process.pid} (--data-dir)"
    )

    os.killpg(os.getpgid(psutil.Process(dev.process.pid).children()[0].pid), signal.SIGINT)
    for name in CHILDREN:  # each is back on its own ports
        pid = read_pid(dev.data_dir.claim(name))
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    async def is_back() -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            return (
                len(rows(ready["database"])) > 1
                and await answers_http(int(ready["ui"].rsplit(":")[-1]), "/")
                and await answers_http(int(ready["gateway"].rsplit(":")[-1]), "/healthz")
            )
        return False

    async with asyncio.timeout(30):
        await until(is_back)
    assert find_stack(data_dir) == found

    assert dev.stop() == 0
    await dev.leaves_nothing(within=0.5)
    assert find_stack(data_dir) is None
    again = start(data_dir, ports=dev.ports)
    assert again.until_ready()["database"] == ready["database"]
    assert len(rows(ready["database"])) > 2
    assert again.stop() == 0


def _lives(process: psutil.Process) -> bool:
    """A zombie is dead: it only waits for init, whose child it became, to take note."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_kill_9_leaves_nothing_and_the_next_start_takes_the_same_ports(start: Start, data_dir: Path) -> None:
    dev = start(data_dir)
    ready = dev.until_ready()
    rows(ready["database"])
    family = [psutil.Process(dev.process.pid), *psutil.Process(dev.process.pid).children(recursive=True)]
    dev.process.kill()
    dev.process.wait()
    again = start(data_dir, ports=dev.ports)
    again.until_ready()
    assert not [process for process in family if _lives(process)]

    family = [psutil.Process(again.process.pid), *psutil.Process(again.process.pid).children(recursive=True)]
    random.shuffle(family)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    again.process.wait()
    third = start(data_dir, ports=dev.ports)
    assert len(rows(third.until_ready()["database"])) == 2
    assert third.stop() == 0
    await third.leaves_nothing(within=0.5)


@pytest.mark.parametrize(
    "numbers", [[signal.SIGKILL], [signal.SIGTERM], [signal.SIGINT] * 3], ids=["KILL", "TERM", "INT three times"]
)
@pytest.mark.parametrize("moment", ["Temporal starts", "Postgres makes", "Postgres starts", "worker and"])
async def test_an_interrupted_start_leaves_nothing(
    start: Start, data_dir: Path, moment: str, numbers: list[signal.Signals]
) -> None:
    dev = start(data_dir)
    dev.until_line(f"PROGRESS {moment}")
    for number in numbers:
        dev.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            dev.process.wait(0.3)
    dev.process.wait(40)
    await dev.leaves_nothing(within=15 if signal.SIGKILL in numbers else 0.5)
    assert find_stack(data_dir) is None


async def test_errors_while_starting_are_one_line_and_leave_nothing(start: Start, data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        taken = start(data_dir, ports=f"0,0,{port},0")
        assert taken.until_line("ERROR ") == (f"UNAVAILABLE: port {port} is taken (--gateway-port)")
    broken = start(data_dir, "--broken")
    error = broken.until_line("ERROR ")
    assert error.startswith("UNAVAILABLE: gateway ended while starting (exit code 1); ")
    assert error.endswith("no gateway today")
    await broken.leaves_nothing(within=0.5)


def test_destroy_removes_all_of_it(start: Start, data_dir: Path) -> None:
    dev = start(data_dir, "--destroy")
    postgres_data = Path(dev.until_ready()["postgresData"])
    assert postgres_data.exists()
    assert dev.stop() == 0
    assert not data_dir.exists()
    assert not postgres_data.parent.exists()
    assert not external_folder(data_dir).exists()


def _python_of_nobody() -> tuple[str, ...] | None:
    """An interpreter that `nobody` can run, and that can import what we need."""
    nobody = pwd.getpwnam("nobody")
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if python is None:
            continue
        with contextlib.suppress(OSError):
            tried = subprocess.run(
                [python, "-c", "import integration_service.devstack.stack"],
                user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], env=_environment(), cwd="/",
                capture_output=True, check=False,
            )  # fmt: skip
            if tried.returncode == 0:
                return (python,)
    return None


def _environment() -> dict[str, str]:
    """No HOME, and modules by path, for an interpreter that is not the virtual environment's."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": ":".join([str(ROOT / ".dev"), *(p for p in sys.path if p.endswith("site-packages"))]),
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests show this where the user is an ordinary one")
async def test_as_an_ordinary_user_without_home(start: Start) -> None:
    python = _python_of_nobody()
    if python is None:
        pytest.skip("no interpreter that nobody can run")
    nobody = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp())
    try:
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        data_dir = home / "share" / "data"
        before = mode(home)
        dev = start(
            data_dir, command=python, env=_environment(), cwd="/", umask=0,
            user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[],
        )  # fmt: skip
        assert dev.until_ready()["postgresData"] == str(data_dir / "postgres")
        assert rows(dev.ready["database"]) == [(1,)]
        assert dev.stop() == 0
        await dev.leaves_nothing(within=0.5)
        assert mode(home) == before
        assert not open_or_foreign(data_dir.parent, nobody.pw_uid)
    finally:
        shutil.rmtree(home)
