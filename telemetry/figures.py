"""Figures that others hold and that are read when somebody scrapes: the database's pool, and what a statement told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from integration_service.contracts.errors import IntegrationError
from integration_service.telemetry.metrics import pool_figures

EVERY = timedelta(seconds=30)
_STALE_AFTER = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """How the service stands, as its database tells; the same from whichever worker asks."""

    connections: Mapping[str, int] = field(default_factory=dict)
    """By status."""
    outbox_lag: timedelta = timedelta(0)
    """How long the delivery that has waited longest is overdue."""
    seal_age: timedelta | None = None
    """Of the execution log's newest seal; None without one."""
    unsealed_age: timedelta | None = None
    """Of the oldest row that no seal covers; None where this login may not look at the log."""


class PoolCollector(Collector):
    """The database pool of this process."""

    def __init__(self, stats: Callable[[], Mapping[str, int]]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        stats = self._stats()
        pool = GaugeMetricFamily(
            "integrations_database_pool", "Connections: open, idle; and who waits for one.", labels=["state"]
        )
        for state, value in pool_figures(stats).items():
            pool.add_metric([state], value)
        yield pool
        yield CounterMetricFamily(
            "integrations_database_pool_wait_seconds",
            "How long all who waited for a connection did so.",
            value=stats.get("requests_wait_ms", 0) / 1000,
        )
        yield CounterMetricFamily(
            "integrations_database_pool_errors", "Who got no connection in time.", value=stats.get("requests_errors", 0)
        )


class StandingCollector(Collector):
    """Asks in the background, so that no scrape waits for the database; tells nothing that is old."""

    def __init__(self, look: Callable[[], Awaitable[Standing]], *, every: timedelta = EVERY) -> None:
        self._look = look
        self._every = every
        self._seen: Standing | None = None
        self._seen_at = 0.0

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Inside, it looks again and again."""
        task = asyncio.create_task(self._keep_looking())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _keep_looking(self) -> None:
        while True:
            try:
                self._seen, self._seen_at = await self._look(), time.monotonic()
            except IntegrationError as error:
                _log.warning("how the service stands could not be read: %s", error)
            except Exception:
                # A figure less must not end the figures.
                _log.exception("how the service stands could not be read")
            await asyncio.sleep(self._every.total_seconds())

    def collect(self) -> Iterable[Metric]:
        seen = self._seen
        if seen is None or time.monotonic() - self._seen_at > _STALE_AFTER * self._every.total_seconds():
            return
        connections = GaugeMetricFamily("integrations_connections", "Instances by status.", labels=["status"])
        for status, count in seen.connections.items():
            connections.add_metric([status], count)
        yield connections
        if seen.seal_age is not None:
            yield _seconds("audit_seal_age_seconds", "Age of the execution log's newest seal.", seen.seal_age)
        if seen.unsealed_age is not None:
            yield _seconds("audit_unsealed_age_seconds", "Age of the oldest row without a seal.", seen.unsealed_age)
        yield _seconds("outbox_lag_seconds", "How long the oldest delivery is overdue.", seen.outbox_lag)


def _seconds(name: str, what: str, value: timedelta) -> Metric:
    return GaugeMetricFamily(f"integrations_{name}", what, value=max(value.total_seconds(), 0))
