"""The worker process: connect, add the plugin, run until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from integration_service.activities.capacity import Capacity
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.plugin import IntegrationClientPlugin, IntegrationPlugin
from integration_service.settings import Settings, temporal_config
from integration_service.storage.temporal_converter import SHARED_DATA_CONVERTER
from integration_service.telemetry.logs import configure_logs
from integration_service.telemetry.process import Telemetry

_SDK_THREADS_END = 0.5  # seconds; they outlive their worker, and without this one exit in six crashed
_ONE_STOP = 2.0  # seconds in which a second signal is the first again, from the group and from a launcher


async def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is held for `worker_grace` at most; a second one ends at once."""
    stop = _stop_signal()
    telemetry = Telemetry.of_worker(exposed=bool(settings.worker_listen), trace_upstreams=settings.trace_upstreams)
    try:
        client = await _connect(settings, telemetry)
        plugin = IntegrationPlugin(settings, telemetry=telemetry)
        worker = Worker(
            client,
            task_queue=settings.task_queue,
            plugins=[plugin],
            # Our own workflows, which every test replays inside the sandbox: here it would cost more CPU than they do.
            workflow_runner=UnsandboxedWorkflowRunner(),
            **Capacity.of(settings).methods(),
        )
        # Not `async with worker`: it waits for ever for one that could not start, as on a database of another version.
        running, asked = asyncio.create_task(worker.run()), asyncio.create_task(stop.wait())
        await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
        plugin.stopping()
        stopping = [] if running.done() else [asyncio.create_task(worker.shutdown())]
        await running
        await asyncio.gather(*stopping)
    finally:
        if telemetry.tracing is not None:
            await asyncio.to_thread(telemetry.tracing.close)
        await asyncio.sleep(_SDK_THREADS_END)


async def _connect(settings: Settings, telemetry: Telemetry) -> Client:
    config = temporal_config()
    try:
        return await Client.connect(
            **config,
            data_converter=SHARED_DATA_CONVERTER,
            plugins=[IntegrationClientPlugin(settings)],
            interceptors=telemetry.interceptors,
            runtime=telemetry.runtime,
        )
    except RuntimeError as error:
        where = config["target_host"]
        raise IntegrationError(
            ErrorCode.UNAVAILABLE, f"no Temporal answers at {where}", path="TEMPORAL_ADDRESS"
        ) from error


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    first = 0.0

    def told() -> None:
        nonlocal first
        if not stop.is_set():
            first = time.monotonic()
            stop.set()
        elif time.monotonic() - first > _ONE_STOP:
            os._exit(1)  # as if killed: heartbeats end, and others go on with its calls as each one's guarantee says

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told)
    return stop


def main() -> None:
    """What `integrations worker` and `python worker.py` run. Raises IntegrationError when it cannot start."""
    settings = Settings.from_environment()
    configure_logs(settings.log_format)
    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(run(settings))


def event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, on which a call costs a worker a tenth less CPU; asyncio's own where there is none: on Windows."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


if __name__ == "__main__":
    try:
        main()
    except IntegrationError as failure:
        sys.exit(str(failure))
