"""Temporal's own runtime: its metrics, read together with ours, and its log, in the same lines."""

from __future__ import annotations

import logging
import socket

import httpx2
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

_HOST = "127.0.0.1"
_log = logging.getLogger(__name__)


class Core:
    """The runtime of one process. It exposes its metrics on a loopback port of its own, and `exposition` reads them
    there: so counting costs Python nothing, and a scraper needs one address."""

    def __init__(self, *, metrics: bool) -> None:
        self._port = _free_port() if metrics else None
        self.runtime = Runtime(
            telemetry=TelemetryConfig(
                logging=LoggingConfig(
                    filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
                    forwarding=LogForwardingConfig(logger=logging.getLogger("temporalio.core")),
                ),
                metrics=PrometheusConfig(
                    bind_address=f"{_HOST}:{self._port}",
                    counters_total_suffix=True,
                    unit_suffix=True,
                    durations_as_seconds=True,
                )
                if self._port
                else None,
            )
        )

    async def exposition(self) -> bytes:
        """Temporal's metrics in Prometheus's text format; nothing where they cannot be read."""
        if self._port is None:
            return b""
        try:
            async with httpx2.AsyncClient(trust_env=False, timeout=2) as http:
                return (await http.get(f"http://{_HOST}:{self._port}/metrics")).content
        except httpx2.HTTPError as error:
            _log.warning("Temporal's own metrics could not be read (%s)", type(error).__name__)
            return b""


def _free_port() -> int:
    # The runtime takes no socket, and tells no port that it chose; between here and there nobody else asks for this.
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
