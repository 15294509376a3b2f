"""A worker of the floor, as a process: `naive` has the SDK's defaults, `tuned` what our own worker sets."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import httpx2
import uvloop
from temporalio.client import Client
from temporalio.worker import Worker

from benchmarks.bare_call import BareCall, Fetch
from benchmarks.tuning import TUNED_CLIENT, tuned_worker
from integration_service.telemetry.core import Core


async def _serve(kind: str, address: str, queue: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tuned = kind == "tuned"
    client_settings: dict[str, Any] = {**TUNED_CLIENT, "runtime": Core(metrics=True).runtime} if tuned else {}
    client = await Client.connect(address, **client_settings)
    settings: dict[str, Any] = tuned_worker() if tuned else {}
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        fetch = Fetch(http, "benchmark-key")
        async with Worker(client, task_queue=queue, workflows=[BareCall], activities=[fetch.fetch], **settings):
            await stop.wait()
    await asyncio.sleep(0.5)


if __name__ == "__main__":
    # The loop is a setting of our worker like the others.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[1] == "tuned" else None) as runner:
        runner.run(_serve(*sys.argv[1:]))
