"""What a running `dev` says of itself, on stdout and in its data directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack.claims import is_held, read_pid
from integration_service.devstack.data_dir import DataDir, read_json, write_private


@dataclass(frozen=True)
class Ready:
    """Where everything answers. `database` holds a password."""

    temporal: str
    namespace: str
    task_queue: str
    gateway: str
    ui: str
    database: str = field(repr=False)
    postgres_data: str

    def to_wire(self) -> dict[str, str]:
        """The object of the ``READY`` line."""
        return {
            "temporal": self.temporal,
            "namespace": self.namespace,
            "taskQueue": self.task_queue,
            "gateway": self.gateway,
            "ui": self.ui,
            "database": self.database,
            "postgresData": self.postgres_data,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, str]) -> Self:
        return cls(
            temporal=wire["temporal"],
            namespace=wire["namespace"],
            task_queue=wire["taskQueue"],
            gateway=wire["gateway"],
            ui=wire["ui"],
            database=wire["database"],
            postgres_data=wire["postgresData"],
        )


@dataclass(frozen=True)
class RunningStack:
    """The stack of another process: `pid` is its `dev`, `environment` makes other commands talk to it."""

    pid: int
    ready: Ready
    http_api: str
    environment: Mapping[str, str] = field(repr=False)

    def write(self, data_dir: DataDir) -> None:
        wire = {
            "pid": self.pid,
            "ready": self.ready.to_wire(),
            "httpApi": self.http_api,
            "environment": dict(self.environment),
        }
        write_private(data_dir.stack_file, json.dumps(wire, indent=2) + "\n")


def find_stack(path: Path) -> RunningStack | None:
    """The stack that runs on the data directory at `path`, or None.

    Raises UNAVAILABLE when the directory is another user's.
    """
    data_dir = DataDir(path.expanduser().resolve())
    try:
        wire: dict[str, Any] | None = read_json(data_dir.stack_file)
        # The lock is held by a dev that lives, the pid says whether it is the one that wrote the file.
        if wire is None or not is_held(data_dir.lock) or read_pid(data_dir.lock) != wire["pid"]:
            return None
    except PermissionError as error:
        raise IntegrationError(
            ErrorCode.UNAVAILABLE, f"{error.filename} is not yours to read", path="--data-dir"
        ) from None
    return RunningStack(
        pid=wire["pid"],
        ready=Ready.from_wire(wire["ready"]),
        http_api=wire["httpApi"],
        environment=wire["environment"],
    )
