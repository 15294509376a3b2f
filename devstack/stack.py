"""The embedded stack: Postgres, Temporal's dev server, worker and gateway, started, kept alive, stopped."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import Client

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import TASK_QUEUE, connection_tests_queue, control_queue
from integration_service.devstack import payloads, placing, postgres, services, temporal
from integration_service.devstack.claims import await_predecessors, claim_data_dir
from integration_service.devstack.data_dir import DataDir, open_data_dir, write_private
from integration_service.devstack.database import accepts_role, database_url, provide_database
from integration_service.devstack.options import StackOptions, StackPorts
from integration_service.devstack.ports import HOST
from integration_service.devstack.running import Ready, RunningStack
from integration_service.devstack.supervisor import Supervisor
from integration_service.devstack.waiting import answers_http, until
from integration_service.storage.migrations import migrate
from integration_service.storage.vault.keyring import generate_keyring_file

_READY_WITHIN = timedelta(seconds=90)
_LOOPBACK = "127.0.0.0/8,::1/128"


class Stack:
    """``async with Stack(options) as stack``: inside, everything answers, and what dies is restarted.

    Entering raises UNAVAILABLE (a port or the data directory is taken, a child does not start: the sentence
    says which) or VALIDATION_ERROR. Leaving stops all in order; so does an error or cancellation on entering.
    `http_api` is the base URL of the dev server's own HTTP API.
    """

    ready: Ready
    environment: dict[str, str]
    http_api: str

    def __init__(self, options: StackOptions, *, on_progress: Callable[[str], None] | None = None) -> None:
        self._options = options
        self._progress = on_progress or (lambda _: None)
        self._lock: int | None = None
        self._data_dir: DataDir | None = None
        self._supervisor: Supervisor | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except OSError as error:
            await self._stop_whole()
            raise IntegrationError(ErrorCode.UNAVAILABLE, str(error), path="--data-dir") from error
        except BaseException:
            await self._stop_whole()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_whole()

    async def run_until(self, stop: asyncio.Event) -> None:
        """Supervises until `stop` is set."""
        if self._supervisor is None:
            raise RuntimeError("not entered")
        await self._supervisor.run_until(stop)

    def destroy(self) -> None:
        """Removes the data directory and all that was stored outside of it. Only after leaving."""
        if self._lock is not None:
            raise RuntimeError("still running")
        if self._data_dir is not None:
            placing.remove_external(self._data_dir.path)
            shutil.rmtree(self._data_dir.path)

    async def _start(self) -> None:
        data_dir = open_data_dir(self._options.data_dir)
        self._lock = await claim_data_dir(data_dir.lock, data_dir.path)
        self._data_dir = data_dir
        data_dir.prepare_folders()
        await await_predecessors(data_dir.claims, _STOP_SIGNALS)
        ports = StackPorts.claim(self._options)
        for keyring in (data_dir.keyring, data_dir.results_keyring, data_dir.payload_keyring):
            _provide_keyring(keyring)
        _provide_token(data_dir.gateway_token)
        cluster = await asyncio.to_thread(postgres.Cluster.open, data_dir, ports.postgres)
        self.ready, self.environment = _ready(ports, cluster), _environment(data_dir, ports, cluster)
        self.http_api = f"http://{HOST}:{ports.temporal_http}"

        supervisor = self._supervisor = Supervisor(data_dir)
        self._progress(f"Temporal starts on {self.ready.temporal}, its Web UI on {self.ready.ui}")
        await supervisor.start(temporal.server(data_dir, ports, encrypted=payloads.are_encrypted()))
        await cluster.start(supervisor, self._progress)
        client = await supervisor.while_alive(_storage_answers(ports, cluster), within=_READY_WITHIN)
        self._progress(f"worker and gateway start, the gateway on {self.ready.gateway}")
        await supervisor.start(*services.service_children(self.environment))
        await supervisor.while_alive(_all_answers(client, ports, cluster), within=_READY_WITHIN)
        RunningStack(os.getpid(), self.ready, self.http_api, self.environment).write(data_dir)
        supervisor.keep()

    async def _stop_whole(self) -> None:
        """Stops in order even if cancelled meanwhile: one Ctrl-C often arrives twice, from group and launcher."""
        stopping = asyncio.create_task(self._stop())
        cancelled: asyncio.CancelledError | None = None
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError as error:
                cancelled = error
        stopping.result()
        if cancelled is not None:
            raise cancelled

    async def _stop(self) -> None:
        # Whoever uses something stops before it. The lock goes last: nobody is to start amid the stopping.
        try:
            if self._data_dir is not None:
                self._data_dir.stack_file.unlink(missing_ok=True)
            if self._supervisor is not None:
                await self._supervisor.stop(services.WORKER, services.GATEWAY, postgres.INITDB)
                await self._supervisor.stop(temporal.NAME)
                await self._supervisor.stop(postgres.NAME)
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


_STOP_SIGNALS = {
    services.WORKER: signal.SIGTERM,
    services.GATEWAY: signal.SIGTERM,
    temporal.NAME: signal.SIGTERM,
    postgres.INITDB: signal.SIGTERM,
    postgres.NAME: postgres.STOP_SIGNAL,
}


def _provide_keyring(path: Path) -> None:
    if not path.exists():
        unfinished = path.with_name(f".{path.name}.new")
        unfinished.unlink(missing_ok=True)
        generate_keyring_file(unfinished)
        unfinished.rename(path)  # a kill never leaves half a keyring


def _provide_token(path: Path) -> None:
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))


def _ready(ports: StackPorts, cluster: postgres.Cluster) -> Ready:
    return Ready(
        temporal=f"{HOST}:{ports.temporal}",
        namespace=temporal.NAMESPACE,
        task_queue=TASK_QUEUE,
        gateway=f"http://{HOST}:{ports.gateway}",
        ui=f"http://{HOST}:{ports.ui}",
        database=database_url(cluster),
        postgres_data=str(cluster.data),
    )


def _environment(data_dir: DataDir, ports: StackPorts, cluster: postgres.Cluster) -> dict[str, str]:
    return {
        "INTEGRATIONS_DATABASE_URL": database_url(cluster),
        "INTEGRATIONS_KEYRING": str(data_dir.keyring),
        "INTEGRATIONS_RESULTS_KEYRING": str(data_dir.results_keyring),
        "INTEGRATIONS_GATEWAY_TOKENS": data_dir.gateway_token.read_text(encoding="utf-8"),
        "INTEGRATIONS_PUBLIC_URL": f"http://{HOST}:{ports.gateway}",
        "INTEGRATIONS_WEB_UI_URL": f"http://{HOST}:{ports.ui}",
        "INTEGRATIONS_GATEWAY_LISTEN": f"{HOST}:{ports.gateway}",
        "INTEGRATIONS_WORKER_LISTEN": f"{HOST}:{ports.worker}",
        "INTEGRATIONS_TASK_QUEUE": TASK_QUEUE,
        "INTEGRATIONS_EGRESS_ALLOW": _LOOPBACK,
        **payloads.environment(data_dir, ports),
        # Beside payload encryption the one setting of the caller's that a stack takes over: his pages are his.
        **{name: value for name, value in os.environ.items() if name == "INTEGRATIONS_RETURN_URLS"},
        "TEMPORAL_ADDRESS": f"{HOST}:{ports.temporal}",
        "TEMPORAL_NAMESPACE": temporal.NAMESPACE,
        "TEMPORAL_CONFIG_FILE": str(data_dir.temporal_config),
    }


async def _storage_answers(ports: StackPorts, cluster: postgres.Cluster) -> Client:
    """Temporal and a migrated database are there: what worker and gateway need."""
    await provide_database(cluster)
    await asyncio.to_thread(migrate, database_url(cluster))
    client = await temporal.connect(ports.temporal)
    await temporal.provide_nexus_endpoint(client)
    return client


async def _all_answers(client: Client, ports: StackPorts, cluster: postgres.Cluster) -> None:
    await until(lambda: accepts_role(cluster))
    await until(lambda: answers_http(ports.ui, "/"))
    await until(lambda: answers_http(ports.temporal_http, f"/api/v1/namespaces/{temporal.NAMESPACE}"))
    await until(lambda: answers_http(ports.gateway, "/healthz"))
    for queue, kind in (
        (TASK_QUEUE, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW),
        (TASK_QUEUE, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY),
        (control_queue(TASK_QUEUE), TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY),
        (connection_tests_queue(TASK_QUEUE), TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY),
    ):
        await until(partial(temporal.has_pollers, client, queue, kind))
