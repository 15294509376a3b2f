"""How long `integrations dev` takes until READY: on an empty data directory, and on the same one again."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import ROOT
from integration_service.devstack.environment import child_environment

_PORTS = ("--temporal-port", "--ui-port", "--gateway-port", "--postgres-port")


async def measure_starts() -> dict[str, float]:
    """Seconds of the `first` and of the `second` start."""
    with tempfile.TemporaryDirectory(prefix="integrations-bench-") as folder:
        return {name: await _start(Path(folder) / "data") for name in ("first", "second")}


async def _start(data_dir: Path) -> float:
    began = time.monotonic()
    ports = [word for option in _PORTS for word in (option, "0")]
    started = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).parent / "integrations"), "dev", "--data-dir", str(data_dir), *ports),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=child_environment({}),
        cwd=ROOT,
    )
    assert started.stdout is not None  # noqa: S101 - a pipe
    line = await started.stdout.readline()
    took = time.monotonic() - began
    if started.returncode is None:
        started.send_signal(signal.SIGINT)
    await started.communicate()
    if not line.startswith(b"READY"):
        raise RuntimeError("dev did not start")
    return took
