"""The worker process: connect, add the plugin, run until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.plugin import IntegrationClientPlugin, IntegrationPlugin
from integration_service.settings import Settings, temporal_config

_SDK_THREADS_END = 0.5  # seconds; they outlive their worker, and without this one exit in six crashed


async def run() -> None:
    """Serve until SIGINT or SIGTERM, then finish what is held for up to 30 seconds."""
    settings = Settings.from_environment()
    plugin = IntegrationPlugin(settings)
    config = temporal_config()
    try:
        client = await Client.connect(**config, plugins=[IntegrationClientPlugin(settings)])
    except RuntimeError as error:
        await asyncio.sleep(_SDK_THREADS_END)
        where = config["target_host"]
        raise IntegrationError(
            ErrorCode.UNAVAILABLE, f"no Temporal answers at {where}", path="TEMPORAL_ADDRESS"
        ) from error
    worker = Worker(
        client,
        task_queue=settings.task_queue,
        plugins=[plugin],
        graceful_shutdown_timeout=timedelta(seconds=30),
        # Our own workflows, which every test replays inside the sandbox: here it would cost more CPU than they do.
        workflow_runner=UnsandboxedWorkflowRunner(),
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Not `async with worker`: it waits for ever for one that could not start, as on a database of another version.
    running, asked = asyncio.create_task(worker.run()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
        stopping = [] if running.done() else [asyncio.create_task(worker.shutdown())]
        await running
        await asyncio.gather(*stopping)
    finally:
        await asyncio.sleep(_SDK_THREADS_END)


def main() -> None:
    """What `integrations worker` and `python worker.py` run. Raises IntegrationError when it cannot start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(run())


if __name__ == "__main__":
    try:
        main()
    except IntegrationError as failure:
        sys.exit(str(failure))
