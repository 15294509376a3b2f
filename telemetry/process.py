"""All that one process tells of itself, opened once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from integration_service.telemetry.metrics import Metrics
from integration_service.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from temporalio.client import Interceptor
    from temporalio.runtime import Runtime

    from integration_service.telemetry.core import Core


@dataclass(frozen=True)
class Telemetry:
    """Metrics always; Temporal's runtime and traces where they are wanted."""

    metrics: Metrics = field(default_factory=Metrics)
    core: Core | None = None
    tracing: Tracing | None = None

    @classmethod
    def of_worker(cls, *, exposed: bool, trace_upstreams: Sequence[str]) -> Telemetry:
        """For a process that may be scraped (`exposed`) and traced. Raises IntegrationError for a bad variable."""
        from integration_service.telemetry.core import Core

        tracing = Tracing.from_environment(service="integrations-worker", upstreams=trace_upstreams)
        return cls(core=Core(metrics=exposed), tracing=tracing)

    @property
    def runtime(self) -> Runtime | None:
        """For `Client.connect`."""
        return self.core.runtime if self.core else None

    @property
    def interceptors(self) -> Sequence[Interceptor]:
        """For `Client.connect`; the workers made from that client get them too."""
        return [self.tracing.interceptor] if self.tracing else []

    async def exposition(self) -> bytes:
        """Everything in Prometheus's text format: ours, then Temporal's."""
        return self.metrics.exposition() + (await self.core.exposition() if self.core else b"")
