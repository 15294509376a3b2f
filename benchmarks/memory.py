"""What calls in flight cost a worker in memory: so many are started at once on an upstream that takes ten seconds."""

from __future__ import annotations

import asyncio

from benchmarks.load import Slice
from benchmarks.processes import costs
from benchmarks.scene import Scene

IN_FLIGHT = (100, 500)
_LOOK_EVERY_S = 0.5


async def measure_memory(scene: Scene) -> dict[str, float]:
    """MiB of the worker before, by name of its most during each number, and the KiB a call at the greatest."""
    before = _mib()
    found = {"0": before}
    for count in IN_FLIGHT:
        wanted = Slice("method", method="slow", instances=(scene.instance,), callers=count, calls_each=1)
        running = asyncio.create_task(scene.load.run(wanted))
        most = 0.0
        while not running.done():
            most = max(most, _mib())
            await asyncio.wait({running}, timeout=_LOOK_EVERY_S)
        if (measured := running.result()).failed:
            raise RuntimeError(f"{measured.failed} slow calls failed")
        found[str(count)] = most
    last = IN_FLIGHT[-1]
    return {**found, "kibPerCall": (found[str(last)] - before) * 1024 / last}


def _mib() -> float:
    return costs(memory=True)["worker"].mib
