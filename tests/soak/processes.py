"""What the stack's processes cost: CPU seconds and memory, by what they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Cost:
    """CPU seconds used so far, and MiB of memory now, what is shared counted once (Linux's PSS)."""

    cpu_s: float = 0
    mib: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu_s + other.cpu_s, self.mib + other.mib)


def costs() -> dict[str, Cost]:
    """Cost of worker, gateway, Temporal and Postgres among this process's children."""
    found: dict[str, Cost] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            kind = _kind(process)
            times, memory = process.cpu_times(), process.memory_full_info()
        except (psutil.Error, OSError):
            continue
        if kind is not None:
            found[kind] = found.get(kind, Cost()) + Cost(times.user + times.system, memory.pss / _MIB)
    return found


def _kind(process: psutil.Process) -> str | None:
    command = process.cmdline()
    if command[-2:] == ["-m", "integration_service.worker"] and len(command) < 6:
        return "worker"
    if command[-2:] == ["-m", "integration_service.gateway"] and len(command) < 6:
        return "gateway"
    name = Path(command[0]).name if command else process.name()
    if name.startswith("postgres"):
        return "postgres"
    return "temporal" if name == "temporal" else None
