"""The processes of a benchmark: started, spoken with, and what each kind of them costs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.load import Measured, Slice
from integration_service.devstack.environment import child_environment

ROOT = Path(__file__).resolve().parent.parent
_LINE = 64 * 1024 * 1024
_MIB = 1024 * 1024
_MODULES = {
    "integration_service.worker": "worker",
    "integration_service.gateway": "gateway",
    "benchmarks.floor_worker": "floor",
    "benchmarks.load": "load",
    "benchmarks.upstream": "upstream",
}


@asynccontextmanager
async def process(
    module: str, *arguments: str, environment: Mapping[str, str], python: Sequence[str] = (sys.executable,)
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Inside, `python -m module` runs; afterwards it is stopped."""
    started = await asyncio.create_subprocess_exec(
        *python,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(environment),
        cwd=ROOT,
        limit=_LINE,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
            try:
                await asyncio.wait_for(started.wait(), 10)
            except TimeoutError:
                started.kill()
                await started.wait()


class Generator:
    """A load generator's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, wanted: Slice) -> Measured:
        """Raises RuntimeError when the process ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("started without pipes")
        stdin.write(json.dumps(asdict(wanted)).encode() + b"\n")
        line = await stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended")
        return Measured(**json.loads(line))


@dataclass(frozen=True)
class Cost:
    """CPU seconds used so far, and MiB of memory now, what is shared counted once (Linux's PSS)."""

    cpu_s: float = 0
    mib: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu_s + other.cpu_s, self.mib + other.mib)


def costs(*, memory: bool = False) -> dict[str, Cost]:
    """Cost of each kind of process among this one's descendants: `worker`, `floor`, `temporal`, `postgres`, …"""
    found: dict[str, Cost] = {}
    for child in psutil.Process().children(recursive=True):
        try:
            kind = _kind(child)
            times = child.cpu_times()
            mib = child.memory_full_info().pss / _MIB if memory and kind else 0.0
        except (psutil.Error, OSError):
            continue
        if kind is not None:
            found[kind] = found.get(kind, Cost()) + Cost(times.user + times.system, mib)
    return found


def _kind(process: psutil.Process) -> str | None:
    command = process.cmdline()
    name = Path(command[0]).name if command else process.name()
    if name.startswith("postgres"):
        return "postgres"
    if name == "temporal":
        return "temporal"
    # A guard of the stack names the module of what it guards, further back.
    for at, word in enumerate(command[1:4], 1):
        if word == "-m":
            return _MODULES.get(command[at + 1])
    return None
