"""The worker process: connect, add the plugin, run until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from datetime import timedelta

from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from integration_service.contracts.errors import IntegrationError
from integration_service.plugin import IntegrationClientPlugin, IntegrationPlugin
from integration_service.settings import Settings


async def run() -> None:
    """Serve until SIGINT or SIGTERM, then finish what is held for up to 30 seconds."""
    settings = Settings.from_environment()
    plugin = IntegrationPlugin(settings)
    client = await Client.connect(**ClientConfig.load_client_connect_config(), plugins=[IntegrationClientPlugin()])
    worker = Worker(
        client,
        task_queue=settings.task_queue,
        plugins=[plugin],
        graceful_shutdown_timeout=timedelta(seconds=30),
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with worker:
        await stop.wait()
    await asyncio.sleep(0.5)  # the SDK's threads end after its worker: without this, one exit in six crashed


def main() -> None:
    """`integrations worker` and `python worker.py`: one line on stderr and exit 1 when it cannot run."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(run())
    except (IntegrationError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
