"""A worker process beside the stack's own, on a task queue of its own: asked, told to stop, and waited for."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from integration_service.client import Integrations
from integration_service.devstack.environment import child_environment
from integration_service.devstack.ports import HOST, claim_ports
from integration_service.devstack.stack import Stack
from tests.waiting import eventually


@dataclass
class WorkerProcess:
    """One that runs. `url` is where it answers for itself, `log` what it has written."""

    process: asyncio.subprocess.Process
    url: str
    log: Path

    async def get(self, path: str) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False) as http:
            return await http.get(self.url + path)

    async def ready(self, *, within_s: float = 30) -> None:
        async def look() -> bool:
            assert self.process.returncode is None, self.log.read_text()
            try:
                return (await self.get("/readyz")).status_code == 200
            except httpx2.TransportError:
                return False

        try:
            await eventually(look, within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"not ready within {within_s} s: {self.log.read_text()}") from error

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def code(self, *, within_s: float = 45) -> int:
        return await asyncio.wait_for(self.process.wait(), within_s)


@asynccontextmanager
async def worker_process(stack: Stack, queue: str, **settings: str) -> AsyncIterator[WorkerProcess]:
    """Started and not waited for; killed in the end if it still runs. `settings` are variables without the prefix."""
    [port] = claim_ports({"a worker's health": 0}).values()
    own = {
        **stack.environment,
        "INTEGRATIONS_TASK_QUEUE": queue,
        "INTEGRATIONS_WORKER_LISTEN": f"{HOST}:{port}",
        **{f"INTEGRATIONS_{name.upper()}": value for name, value in settings.items()},
    }
    with tempfile.TemporaryDirectory(prefix="integrations-worker-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "integration_service.worker"),
                env=child_environment(own),
                stdout=output,
                stderr=output,
            )
        try:
            yield WorkerProcess(process, f"http://{HOST}:{port}", log)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def calls_on(stack_client: Integrations, queue: str) -> Integrations:
    """The same client for another task queue."""
    return Integrations(stack_client._client, task_queue=queue)


def queue_name() -> str:
    return f"q{uuid.uuid4().hex[:12]}"
