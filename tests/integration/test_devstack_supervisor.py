"""Supervision, with children of a few lines: deaths while starting, restarts, stopping."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack.child import ChildSpec
from integration_service.devstack.claims import await_predecessors, is_held, read_pid
from integration_service.devstack.data_dir import DataDir
from integration_service.devstack.supervisor import Supervisor
from integration_service.devstack.waiting import until

WITHIN = timedelta(seconds=20)
IDLE = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    data_dir = DataDir(tmp_path)
    data_dir.prepare_folders()
    return data_dir


def child(name: str, code: str, *, grace: float = 5) -> ChildSpec:
    return ChildSpec(
        name=name,
        command=(sys.executable, "-c", code),
        environment=dict(os.environ),
        grace=timedelta(seconds=grace),
    )


async def up(data_dir: DataDir, name: str, *, times: int = 1) -> None:
    async def said_so() -> bool:
        return data_dir.log(name).exists() and data_dir.log(name).read_text().count("up\n") >= times

    async with asyncio.timeout(20):
        await until(said_so)


async def test_a_death_while_starting_says_what_the_child_said_last(data_dir: DataDir) -> None:
    supervisor = Supervisor(data_dir)
    await supervisor.start(child("well", IDLE), child("ill", "print('one'); print('two'); raise SystemExit(3)"))
    with pytest.raises(IntegrationError) as caught:
        await supervisor.while_alive(asyncio.sleep(60), WITHIN)
    assert caught.value.code == ErrorCode.UNAVAILABLE
    assert caught.value.message == (f"ill ended while starting (exit code 3); {data_dir.log('ill')} ends: one | two")
    await supervisor.stop("well", "ill")


async def test_waiting_has_its_bound(data_dir: DataDir) -> None:
    supervisor = Supervisor(data_dir)
    await supervisor.start(child("slow", IDLE))
    with pytest.raises(IntegrationError, match="slow: not ready within 0 s"):
        await supervisor.while_alive(asyncio.sleep(60), timedelta(seconds=0.1))
    with pytest.raises(IntegrationError, match="once: not ready within 0 s"):
        await supervisor.run_once(child("once", IDLE), timedelta(seconds=0.1))
    await supervisor.stop("slow", "once")
    assert not is_held(data_dir.claim("slow"))
    assert not is_held(data_dir.claim("once"))


async def test_an_error_of_ours_while_starting_is_not_hidden(data_dir: DataDir) -> None:
    async def fail() -> None:
        raise ValueError("ours")

    supervisor = Supervisor(data_dir)
    await supervisor.start(child("well", IDLE))
    with pytest.raises(ValueError, match="ours"):
        await supervisor.while_alive(fail(), WITHIN)
    await supervisor.stop("well")


async def test_a_killed_child_is_started_again(data_dir: DataDir, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor(data_dir)
    await supervisor.start(child("one", IDLE))
    await up(data_dir, "one")
    supervisor.keep()
    pid = read_pid(data_dir.claim("one"))
    assert pid is not None
    with caplog.at_level(logging.WARNING):
        os.kill(pid, signal.SIGKILL)
        await up(data_dir, "one", times=2)
    assert "one ended (SIGKILL); starting it again in 0.2 s" in caplog.text
    await supervisor.stop("one")
    assert not is_held(data_dir.claim("one"))


async def test_restarts_are_no_tight_loop(data_dir: DataDir, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor(data_dir)
    await supervisor.start(child("ill", "print('up'); raise SystemExit(1)"))
    with caplog.at_level(logging.WARNING):
        supervisor.keep()
        await up(data_dir, "ill", times=3)
    assert [delay in caplog.text for delay in ("in 0.2 s", "in 0.4 s")] == [True, True]
    await supervisor.stop("ill")


async def test_run_until_ends_with_the_event_and_a_stop_starts_nothing_again(data_dir: DataDir) -> None:
    supervisor = Supervisor(data_dir)
    await supervisor.start(child("one", IDLE), child("two", IDLE))
    await up(data_dir, "one")
    await up(data_dir, "two")
    supervisor.keep()
    stop = asyncio.Event()
    running = asyncio.create_task(supervisor.run_until(stop))
    stop.set()
    await asyncio.wait_for(running, 5)
    await supervisor.stop("one", "two")
    assert not is_held(data_dir.claim("one"))
    assert not is_held(data_dir.claim("two"))


async def test_a_child_that_does_not_listen_is_killed_after_its_grace(data_dir: DataDir) -> None:
    supervisor = Supervisor(data_dir)
    await supervisor.start(child("deaf", STUBBORN, grace=0.2))
    await up(data_dir, "deaf")
    async with asyncio.timeout(5):
        await supervisor.stop("deaf")
    assert not is_held(data_dir.claim("deaf"))


async def test_a_start_waits_for_the_predecessor(data_dir: DataDir) -> None:
    """Whose dev may have been killed: here the first supervisor just does not care any more."""
    await Supervisor(data_dir).start(child("one", IDLE))
    await up(data_dir, "one")
    await await_predecessors(data_dir.claims, {"one": signal.SIGTERM, "never": signal.SIGTERM})
    assert not is_held(data_dir.claim("one"))
    supervisor = Supervisor(data_dir)
    await supervisor.start(child("one", IDLE))
    await up(data_dir, "one", times=2)
    await supervisor.stop("one")


async def test_logs_are_private(data_dir: DataDir) -> None:
    before = os.umask(0)
    try:
        supervisor = Supervisor(data_dir)
        await supervisor.run_once(child("writes", "print('something')"), WITHIN)
    finally:
        os.umask(before)
    assert data_dir.log("writes").stat().st_mode & 0o7777 == 0o600
