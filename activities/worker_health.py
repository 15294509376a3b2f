"""Whether a worker can do its work, and where it says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from temporalio.worker import Worker

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.database import Database
from integration_service.storage.schema_version import check_schema_version
from integration_service.storage.standing import standing
from integration_service.telemetry.endpoints import Readiness, endpoints
from integration_service.telemetry.figures import PoolCollector, StandingCollector
from integration_service.telemetry.listener import listening, read_address
from integration_service.telemetry.process import Telemetry

_VARIABLE = "INTEGRATIONS_WORKER_LISTEN"
_TEMPORAL_WITHIN = timedelta(seconds=2)


class WorkerHealth:
    """Of one worker process. It is live as soon as it listens, and ready once all of its workers poll; the keyring was
    read before, or there would be no worker."""

    def __init__(self, database: Database, worker: Worker) -> None:
        self._database = database
        self._worker = worker
        self._beside: tuple[Worker, ...] = ()
        self._stopping = False

    def serve_with(self, *workers: Worker) -> None:
        """The workers beside the main one run."""
        self._beside = workers

    def stop(self) -> None:
        """It takes no more: not ready from now on, and alive until it has finished what it holds."""
        self._stopping = True

    @asynccontextmanager
    async def listening(self, address: str, telemetry: Telemetry) -> AsyncIterator[None]:
        """Answer at `address`; where it is empty nobody is told, and nothing is looked at."""
        if not address:
            yield
            return
        host, port = read_address(address, variable=_VARIABLE)
        readiness = Readiness(
            {
                "database": partial(check_schema_version, self._database, running=True),
                "workers": self._poll,
                "temporal": self._answers,
            }
        )
        look = StandingCollector(partial(standing, self._database))
        telemetry.metrics.collect_from(look)
        telemetry.metrics.collect_from(PoolCollector(self._database.pool_stats))
        app = Starlette(routes=endpoints(readiness, telemetry.exposition))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(listening(app, host, port, variable=_VARIABLE))
            await stack.enter_async_context(look.looking())
            yield

    async def _poll(self) -> None:
        if self._stopping:
            raise IntegrationError(ErrorCode.UNAVAILABLE, "it finishes what it holds, and stops")
        workers = (self._worker, *self._beside)
        if not self._beside or not all(worker.is_running for worker in workers):
            raise IntegrationError(ErrorCode.UNAVAILABLE, "not all task queues are polled")

    async def _answers(self) -> None:
        if not await self._worker.client.service_client.check_health(timeout=_TEMPORAL_WITHIN):
            raise IntegrationError(ErrorCode.UNAVAILABLE, "Temporal does not answer")
