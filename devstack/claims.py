"""Claims on the data directory, by flock: they end with their holders, however those end.

`dev` holds `<data dir>/lock`. Every child, its guard and whatever they forked hold `<data dir>/run/<name>`,
which contains the child's pid: when that file can be locked, nothing of the child is left, not even a backend
of a killed Postgres. This needs no /proc, and a pid that by now is another process's does not fool it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

from integration_service.contracts.errors import ErrorCode, IntegrationError

_POLL_S = 0.02
# `find_stack` probes the lock by taking it shared for an instant; that is no other dev.
_PROBE_S = 0.5
_STOPPING_S = 20.0
_KILLED_S = 5.0


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_pid(path: Path) -> int | None:
    """The pid that a claim's file names, or None."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def is_held(path: Path) -> bool:
    """Whether some process holds this claim."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


async def claim_data_dir(path: Path, data_dir: Path) -> int:
    """Locks the data directory for this process, as long as the descriptor is open.

    Raises UNAVAILABLE when another dev has it.
    """
    descriptor = _open(path)
    if not await _locked_within(descriptor, _PROBE_S):
        os.close(descriptor)
        raise IntegrationError(
            ErrorCode.UNAVAILABLE,
            f"{data_dir} is in use by another dev, pid {read_pid(path) or 'unknown'}",
            path="--data-dir",
        )
    _write_pid(path)
    return descriptor


async def claim_child(path: Path, stop_signal: signal.Signals) -> int:
    """Takes a child's claim once all of its predecessor is gone, which is told to stop and at last killed.

    Returns the descriptor that guard and child inherit. Raises UNAVAILABLE when the predecessor survives all.
    """
    descriptor = _open(path)
    try:
        if not _try_lock(descriptor):
            await _outlive(descriptor, path, stop_signal)
        os.truncate(path, 0)  # that pid is history
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


async def _outlive(descriptor: int, path: Path, stop_signal: signal.Signals) -> None:
    # Its guard, or the kernel in the guard's place, has told it already; where neither could (macOS, guard
    # and dev both killed), this is the first time.
    for number, bound in ((stop_signal, _STOPPING_S), (signal.SIGKILL, _KILLED_S)):
        _signal(path, number)
        if await _locked_within(descriptor, bound):
            return
    raise IntegrationError(ErrorCode.UNAVAILABLE, f"an earlier {path.name}, pid {read_pid(path)}, does not end")


async def _locked_within(descriptor: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def await_predecessors(run_dir: Path, stop_signals: dict[str, signal.Signals]) -> None:
    """Returns once nothing is left of the children of an earlier dev on the same data directory."""
    for name, stop_signal in stop_signals.items():
        os.close(await claim_child(run_dir / name, stop_signal))


def _write_pid(path: Path) -> None:
    path.write_text(f"{os.getpid()}\n", encoding="ascii")


def _signal(path: Path, number: signal.Signals) -> None:
    if pid := read_pid(path):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
