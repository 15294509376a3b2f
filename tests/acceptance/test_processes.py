"""The deployed processes by their commands: told by the environment, or beside a running `dev`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import httpx2
import pytest

from integration_service.devstack.environment import child_environment
from integration_service.devstack.ports import HOST, claim_ports
from integration_service.devstack.stack import Stack
from tests.waiting import eventually
from tests.worker_process import queue_name

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-c", "from integration_service.cli.main import main; main()")


async def _serves(*command: str, port: int, **environment: str) -> None:
    """It says that it is ready, and ends well when it is told to."""
    process = await asyncio.create_subprocess_exec(*command, env=child_environment(environment))

    async def ready() -> bool:
        assert process.returncode is None
        try:
            async with httpx2.AsyncClient(trust_env=False) as http:
                return (await http.get(f"http://{HOST}:{port}/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    try:
        await eventually(ready, within_s=90)
        process.send_signal(signal.SIGTERM)
        # uvicorn ends in order, and then by the signal that it was told with.
        assert await asyncio.wait_for(process.wait(), 45) in (0, -signal.SIGTERM)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("name", ["worker", "gateway"])
async def test_one_more_beside_a_running_stack(stack: Stack, name: str) -> None:
    [port] = claim_ports({name: 0}).values()
    data_dir = str(Path(stack.environment["INTEGRATIONS_KEYRING"]).parent)
    listen = {f"INTEGRATIONS_{name.upper()}_LISTEN": f"{HOST}:{port}"}
    await _serves(*COMMAND, name, "--data-dir", data_dir, port=port, **listen)


async def test_worker_py_told_by_the_environment(stack: Stack) -> None:
    [port] = claim_ports({"worker": 0}).values()
    own = {"INTEGRATIONS_TASK_QUEUE": queue_name(), "INTEGRATIONS_WORKER_LISTEN": f"{HOST}:{port}"}
    await _serves(sys.executable, str(ROOT / "worker.py"), port=port, **{**stack.environment, **own})
