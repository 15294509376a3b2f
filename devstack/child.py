"""One child process of the stack, run under a guard (see `guard`) that no way of dying leaves it behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from integration_service.devstack import guard
from integration_service.devstack.claims import claim_child
from integration_service.devstack.data_dir import DataDir

_GUARD_SCRIPT = str(Path(guard.__file__).resolve())
_AFTER_GRACE = timedelta(seconds=5)
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class Account:
    """Whom a child runs as, where that is not ourselves."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """How a child is started and stopped. `death_signal` is what it gets when its guard is killed (Linux)."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    grace: timedelta
    account: Account | None = None
    cwd: Path | None = None


class Child:
    """A running (or ended) child; `start` may be called again after `wait` has returned."""

    def __init__(self, spec: ChildSpec, data_dir: DataDir) -> None:
        self.spec = spec
        self._data_dir = data_dir
        self.log = data_dir.log(spec.name)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it once nothing of its predecessor is left. Raises UNAVAILABLE if that does not end."""
        spec, pid_file = self.spec, self._data_dir.claim(self.spec.name)
        claim = await claim_child(pid_file, spec.stop_signal)
        output = -1
        try:
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            order: guard.GuardOrder = {
                "claim": claim,
                "pidFile": str(pid_file),
                "stopSignal": spec.stop_signal,
                "deathSignal": spec.death_signal,
                "graceS": spec.grace.total_seconds(),
                "uid": spec.account.uid if spec.account else None,
                "gid": spec.account.gid if spec.account else None,
            }
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _GUARD_SCRIPT, json.dumps(order), *spec.command),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(spec.environment),
                cwd=spec.cwd,
                umask=0o077,
                pass_fds=(claim,),
                start_new_session=True,
            )
        finally:
            os.close(claim)
            if output >= 0:
                os.close(output)

    async def wait(self) -> int:
        """Until it has ended: its exit code, or the negated signal that killed it."""
        if self._process is None:
            raise RuntimeError(f"{self.spec.name} was not started")
        return await self._process.wait()

    async def stop(self) -> None:
        """Stops it in order: its stop signal, after its grace SIGKILL. Returns when nothing of it is left."""
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(b".")
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), (self.spec.grace + _AFTER_GRACE).total_seconds())
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        os.close(await claim_child(self._data_dir.claim(self.spec.name), self.spec.stop_signal))

    def last_words(self, lines: int = 5) -> str:
        """The last lines that it, or its guard, wrote, as one line."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])


def describe_exit(code: int) -> str:
    """Such as ``exit code 1`` or ``SIGKILL``."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
