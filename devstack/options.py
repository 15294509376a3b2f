"""What the user may choose of the stack, and the ports that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from integration_service.devstack.ports import claim_ports


@dataclass(frozen=True)
class StackOptions:
    """A port of 0 means: a free one."""

    data_dir: Path
    temporal_port: int
    ui_port: int
    gateway_port: int
    postgres_port: int


@dataclass(frozen=True)
class StackPorts:
    """All ports of a stack, the same for as long as it lives."""

    temporal: int
    ui: int
    gateway: int
    postgres: int
    temporal_http: int
    worker: int

    @classmethod
    def claim(cls, options: StackOptions) -> Self:
        """Raises UNAVAILABLE naming a port that is taken, VALIDATION_ERROR for what is no port."""
        temporal_http, worker = "Temporal's HTTP API", "the worker's health"
        ports = claim_ports(
            {
                "--temporal-port": options.temporal_port,
                "--ui-port": options.ui_port,
                "--gateway-port": options.gateway_port,
                "--postgres-port": options.postgres_port,
                temporal_http: 0,
                worker: 0,
            }
        )
        return cls(
            temporal=ports["--temporal-port"],
            ui=ports["--ui-port"],
            gateway=ports["--gateway-port"],
            postgres=ports["--postgres-port"],
            temporal_http=ports[temporal_http],
            worker=ports[worker],
        )
