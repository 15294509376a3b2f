"""A stack's servers killed from outside, as a crash does it; its supervisor starts them again."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import psutil

from integration_service.devstack.stack import Stack

_GONE_WITHIN_S = 10


class Servers:
    """Postgres and Temporal of one stack. A kill returns when its process is gone."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def kill_postgres(self, *, immediate: bool) -> None:
        """The postmaster: an immediate shutdown (SIGQUIT), which takes its backends along, or SIGKILL."""
        [postmaster] = [one for one in _children("postgres") if self._stack.ready.postgres_data in one.cmdline()]
        postmaster.send_signal(signal.SIGQUIT if immediate else signal.SIGKILL)
        await asyncio.to_thread(postmaster.wait, _GONE_WITHIN_S)

    async def kill_temporal(self) -> None:
        """Without a chance to write anything more."""
        port = self._stack.ready.temporal.rpartition(":")[2]
        [server] = [one for one in _children("temporal") if port in one.cmdline()]
        server.kill()
        await asyncio.to_thread(server.wait, _GONE_WITHIN_S)


def _children(program: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        # A guard names the program too, among its arguments.
        if command and Path(command[0]).name == program:
            found.append(process)
    return found
