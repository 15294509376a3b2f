"""The stack's worker processes: seen, killed, and joined by further ones."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from integration_service.devstack import services
from integration_service.devstack.data_dir import open_data_dir
from integration_service.devstack.stack import Stack
from integration_service.devstack.supervisor import Supervisor


class Workers:
    """Every worker process that serves one stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def running(self) -> list[psutil.Process]:
        """Those that run now; a guard, which names the module too, is none."""
        found = []
        keyring = self._stack.environment["INTEGRATIONS_KEYRING"]
        for process in psutil.Process().children(recursive=True):
            try:
                command, environment = process.cmdline(), process.environ()
            except (psutil.Error, OSError):
                continue
            is_worker = command[-2:] == ["-m", "integration_service.worker"] and len(command) < 6
            if is_worker and environment.get("INTEGRATIONS_KEYRING") == keyring:
                found.append(process)
        return found

    def kill(self) -> None:
        """Kill -9 whatever of them runs; the stack's own is then restarted by its supervisor."""
        for process in self.running():
            process.kill()

    @asynccontextmanager
    async def joined_by(self, more: int) -> AsyncIterator[None]:
        """Inside, so many more processes have been started; who serves shows in the histories of calls."""
        # The stack's own worker has that address.
        environment = {**self._stack.environment, "INTEGRATIONS_WORKER_LISTEN": ""}
        [worker, _] = services.service_children(environment)
        specs = [dataclasses.replace(worker, name=f"worker-{number}") for number in range(more)]
        with tempfile.TemporaryDirectory(prefix="integrations-workers-") as folder:
            data_dir = open_data_dir(Path(folder) / "workers")
            data_dir.prepare_folders()
            supervisor = Supervisor(data_dir)
            try:
                await supervisor.start(*specs)
                yield
            finally:
                await supervisor.stop(*(spec.name for spec in specs))
