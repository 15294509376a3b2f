"""Calls of ours against the floors: short slices that alternate within a round, ratios taken round by round."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.load import Measured, Slice
from benchmarks.processes import costs
from benchmarks.scene import Scene, floor_queue

_WORKERS = ("worker", "floor")


@dataclass(frozen=True)
class Run:
    """One slice: what it gave, and the milliseconds of CPU that a call of it cost, by kind of process."""

    measured: Measured
    cpu_ms: Mapping[str, float]

    @property
    def worker_ms(self) -> float:
        """Of whichever worker served it; the other ones idle."""
        return sum(self.cpu_ms.get(kind, 0) for kind in _WORKERS)

    @property
    def all_ms(self) -> float:
        """Of everything but the load generator and the upstream."""
        return self.worker_ms + self.cpu_ms.get("temporal", 0) + self.cpu_ms.get("postgres", 0)


@dataclass
class Level:
    """All rounds of all sides for one number of callers."""

    callers: int
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def per_second(self, side: str) -> float:
        return statistics.median(run.measured.per_second for run in self.runs[side])

    def latency_ms(self, side: str, share: float) -> float:
        """A percentile over the calls of all rounds."""
        every = [latency for run in self.runs[side] for latency in run.measured.latencies_ms]
        return Measured(0, 1, 0, every).percentile(share)

    def cpu_ms(self, side: str, kind: str) -> float:
        runs = self.runs[side]
        if kind == "worker":
            return statistics.median(run.worker_ms for run in runs)
        if kind == "all":
            return statistics.median(run.all_ms for run in runs)
        return statistics.median(run.cpu_ms.get(kind, 0) for run in runs)

    def throughput_ratio(self, side: str, of: str) -> float:
        """Median of the rounds' ratios: noise that lasts longer than a round falls out."""
        return statistics.median(
            one.measured.per_second / other.measured.per_second
            for one, other in zip(self.runs[side], self.runs[of], strict=True)
        )

    def latency_ratio(self, side: str, of: str, share: float) -> float:
        return statistics.median(
            one.measured.percentile(share) / other.measured.percentile(share)
            for one, other in zip(self.runs[side], self.runs[of], strict=True)
        )


async def run_slice(scene: Scene, wanted: Slice) -> Run:
    """One slice, with what it cost. Raises RuntimeError when a call of it failed: such figures say nothing."""
    before = costs()
    measured = await scene.load.run(wanted)
    after = costs()
    if measured.failed or not measured.calls:
        raise RuntimeError(f"{measured.failed} calls of {wanted.kind} failed")
    spent = {
        kind: (cost.cpu_s - before[kind].cpu_s) * 1000 / measured.calls
        for kind, cost in after.items()
        if kind in before
    }
    return Run(measured, spent)


async def compare(
    scene: Scene, sides: Mapping[str, Slice], callers: Sequence[int], *, rounds: int, seconds: float
) -> list[Level]:
    """Every side at every number of callers; who goes first changes from round to round."""
    levels = []
    names = list(sides)
    for count in callers:
        level = Level(count, {name: [] for name in names})
        for number in range(-1, rounds):
            at = number % len(names)
            for name in names[at:] + names[:at]:
                wanted = Slice(**{**vars(sides[name]), "callers": count, "seconds": seconds})
                run = await run_slice(scene, wanted)
                if number >= 0:  # the first round warms up
                    level.runs[name].append(run)
        levels.append(level)
        for name in names:
            sys.stderr.write(
                f"{count:3} callers  {name:12} {level.per_second(name):7.1f}/s  p50 {level.latency_ms(name, 0.5):7.1f}"
                f"  p99 {level.latency_ms(name, 0.99):7.1f} ms  CPU worker {level.cpu_ms(name, 'worker'):5.1f}"
                f" temporal {level.cpu_ms(name, 'temporal'):5.1f} postgres {level.cpu_ms(name, 'postgres'):5.1f}\n"
            )
    return levels


def workflow_sides(scene: Scene) -> dict[str, Slice]:
    """`ExecuteMethod`, uncached and cached, and the bare workflow twice."""
    url = f"{scene.url}/things/7"
    return {
        "ours": Slice("method", instances=(scene.instance,)),
        "naive": Slice("bare-default", queue=floor_queue("naive"), url=url),
        "cached": Slice("method", method="cached", instances=(scene.instance,)),
        "tuned": Slice("bare", queue=floor_queue("tuned"), url=url),
    }


def standalone_sides(scene: Scene) -> dict[str, Slice]:
    """The method's activity without a workflow, against the bare activity without one."""
    url = f"{scene.url}/things/7"
    return {
        "ours": Slice("method-alone", activity="bench.get", instances=(scene.instance,)),
        "tuned": Slice("bare-alone", activity="fetch", queue=floor_queue("tuned"), url=url),
        "cached": Slice("method-alone", activity="bench.cached", instances=(scene.instance,)),
        "naive": Slice("bare-alone", activity="fetch", queue=floor_queue("naive"), url=url),
    }
