"""The guard: whoever dies, and however, the child does not stay."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from integration_service.devstack import guard
from integration_service.devstack.claims import is_held, read_pid
from integration_service.devstack.waiting import until

IDLE = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()
"""
POLITE = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("up", flush=True)
signal.pause()
"""
WITH_GRANDCHILD = """
import subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print("up", grandchild.pid, flush=True)
grandchild.wait()
"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    return tmp_path / "claim"


@pytest.fixture
def start(claim: Path) -> Iterator[Start]:
    """Starts Python code, or a command, under a guard; returns once it has printed its first line."""
    with contextlib.ExitStack() as stack:

        def start(code: str, *, grace_s: float = 5, command: list[str] | None = None) -> subprocess.Popen[bytes]:
            descriptor = os.open(claim, os.O_RDONLY | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            order: guard.GuardOrder = {
                "claim": descriptor,
                "pidFile": str(claim),
                "stopSignal": signal.SIGTERM,
                "deathSignal": signal.SIGKILL,
                "graceS": grace_s,
                "uid": None,
                "gid": None,
            }
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, json.dumps(order)]
                + (command or [sys.executable, "-c", code]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
            os.close(descriptor)
            stack.callback(process.__exit__, None, None, None)
            stack.callback(process.kill)
            return process

        yield start


def first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode()


async def gone(claim: Path, within: float = 10) -> None:
    async def nothing_holds_it() -> bool:
        return not is_held(claim)

    async with asyncio.timeout(within):
        await until(nothing_holds_it)


async def child_of(claim: Path) -> psutil.Process:
    async def is_named() -> bool:
        return read_pid(claim) is not None

    async with asyncio.timeout(10):
        await until(is_named)  # the child may print before the guard has written
    return psutil.Process(read_pid(claim))


async def test_end_of_the_pipe_stops_the_child(start: Start, claim: Path) -> None:
    process = start(IDLE)
    first_line(process)
    assert is_held(claim)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == -signal.SIGTERM
    await gone(claim)


async def test_a_child_that_does_not_listen_is_killed(start: Start, claim: Path) -> None:
    process = start(STUBBORN, grace_s=0.2)
    first_line(process)
    assert process.stdin is not None
    process.stdin.write(b".")
    process.stdin.close()
    assert process.wait(10) == -signal.SIGKILL
    await gone(claim)


async def test_sigterm_is_forwarded_and_the_exit_code_passes_through(start: Start, claim: Path) -> None:
    process = start(POLITE)
    first_line(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 7
    await gone(claim)


@pytest.mark.parametrize("code", [0, 3])
def test_exit_codes_pass_through(start: Start, code: int) -> None:
    assert start(f"raise SystemExit({code})").wait(10) == code


async def test_the_childs_signal_passes_through(start: Start, claim: Path) -> None:
    process = start(IDLE)
    first_line(process)
    (await child_of(claim)).kill()
    assert process.wait(10) == -signal.SIGKILL


def test_what_cannot_be_started_says_so(start: Start) -> None:
    process = start("", command=["/does/not/exist"])
    assert "cannot start /does/not/exist" in first_line(process)
    assert process.wait(10) == 127


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
async def test_kill_9_of_the_guard_takes_the_child_along(start: Start, claim: Path) -> None:
    process = start(STUBBORN)
    first_line(process)
    process.kill()
    await gone(claim)


async def test_sigint_to_the_guards_group_is_ignored(start: Start, claim: Path) -> None:
    process = start(POLITE)
    first_line(process)
    os.killpg(process.pid, signal.SIGINT)
    (await child_of(claim)).send_signal(signal.SIGINT)
    # A signal sent later that does work shows that the earlier one was passed over.
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 7


async def test_what_the_child_leaves_behind_goes_too(start: Start, claim: Path) -> None:
    process = start(WITH_GRANDCHILD)
    grandchild = psutil.Process(int(first_line(process).split()[1]))
    (await child_of(claim)).kill()
    process.wait(10)

    async def ended() -> bool:
        return not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE

    async with asyncio.timeout(10):
        await until(ended)


async def test_the_child_does_not_hold_the_pipe(start: Start, claim: Path) -> None:
    process = start("import os; print(os.fstat(0).st_rdev == os.stat('/dev/null').st_rdev, flush=True)")
    assert first_line(process) == "True\n"
