"""``python -m benchmarks [PART…] [--quick]``: measures, keeps the figures in results.json, writes docs/performance.md.

Without parts it measures all but `data`, which fills a log with ten million rows first. What is not measured this time
keeps its figures of before. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.amount import Amount, measure_amounts
from benchmarks.comparison import Level, compare, standalone_sides, workflow_sides
from benchmarks.machine import describe
from benchmarks.memory import measure_memory
from benchmarks.processes import ROOT, process
from benchmarks.pythons import command
from benchmarks.refreshing import TOKENS, measure_refreshes
from benchmarks.report import write_report
from benchmarks.scene import Scene, scene
from benchmarks.starting import measure_starts

RESULTS = ROOT / "benchmarks" / "results.json"
_ASKED_FOR = 10
"""Callers for which the floors are to be kept up with."""
_STAGE_PROCESSES = 3
"""One process may be slower than the next from its first call to its last, on the same code."""
_METHODS = ("get", "limited", "cached", "mapped")
_QUANTITIES = (Amount(100), Amount(10_000), Amount(100_000))
_DATA = (Amount(100), Amount(100_000, 10_000_000))
_SOME_DATA = (Amount(100), Amount(10_000, 500_000))
_SHARES = {"p50": 0.5, "p99": 0.99}


class Parts:
    """What can be measured, by name; each gives plain JSON."""

    def __init__(self, stage: Scene, *, quick: bool) -> None:
        self._scene = stage
        self._quick = quick
        self._rounds, self._seconds = (3, 1.5) if quick else (15, 3.0)
        # Two alike are told apart to a twentieth or less: that takes more rounds.
        self._rounds_of_alike = 3 * self._rounds
        self._stage_calls = 200 if quick else 2000

    async def calls(self) -> Any:
        sides, levels = workflow_sides(self._scene), []
        for callers in (1, _ASKED_FOR, 50):
            rounds = self._rounds_of_alike if callers == _ASKED_FOR else self._rounds
            levels += await compare(self._scene, sides, (callers,), rounds=rounds, seconds=self._seconds)
        return _plain(levels)

    async def standalone(self) -> Any:
        sides = standalone_sides(self._scene)
        rounds = max(self._rounds // 2, 3)
        return _plain(await compare(self._scene, sides, (1, 10, 50), rounds=rounds, seconds=self._seconds))

    async def stages(self) -> Any:
        found = [await self._stages_of_a_process() for _ in range(_STAGE_PROCESSES)]
        of_each = [one["methods"] for one in found]
        return {
            "python": found[0]["python"],
            "methods": {method: min((one[method] for one in of_each), key=_total) for method in _METHODS},
        }

    async def _stages_of_a_process(self) -> Any:
        arguments = (str(self._stage_calls), self._scene.instance, *_METHODS)
        environment = self._scene.stack.environment
        async with process("benchmarks.stages", *arguments, environment=environment, python=command()) as running:
            assert running.stdout is not None  # noqa: S101 - a pipe
            line = await running.stdout.readline()
        if not line:
            raise RuntimeError("the stages were not measured; what went wrong stands above")
        return json.loads(line)

    async def memory(self) -> Any:
        return await measure_memory(self._scene)

    async def refreshes(self) -> Any:
        return await measure_refreshes(self._scene, tokens=40 if self._quick else TOKENS)

    async def instances(self) -> Any:
        return await self._amounts(_QUANTITIES)

    async def data(self) -> Any:
        return await self._amounts(_SOME_DATA if self._quick else _DATA)

    async def start(self) -> Any:
        return await measure_starts()

    async def _amounts(self, amounts: tuple[Amount, ...]) -> Any:
        level = await measure_amounts(self._scene, amounts, rounds=self._rounds_of_alike, seconds=self._seconds)
        return [
            {
                "title": amount.title,
                "perSecond": level.per_second(amount.title),
                "ratio": level.throughput_ratio(amount.title, amounts[0].title),
                **{name: level.latency_ms(amount.title, share) for name, share in _SHARES.items()},
            }
            for amount in amounts
        ]


def _total(stages: dict[str, float]) -> float:
    return sum(stages.values())


_PARTS = ("calls", "standalone", "stages", "refreshes", "instances", "memory", "start", "data")


def _plain(levels: list[Level]) -> Any:
    """Figures of each side at each level, with ratios of the others to the two floors."""
    return [
        {
            "callers": level.callers,
            "sides": {
                side: {
                    "perSecond": level.per_second(side),
                    **{name: level.latency_ms(side, share) for name, share in _SHARES.items()},
                    "cpuMs": {kind: level.cpu_ms(side, kind) for kind in ("worker", "temporal", "postgres", "all")},
                    "of": {
                        floor: {
                            "perSecond": level.throughput_ratio(side, floor),
                            **{name: level.latency_ratio(side, floor, share) for name, share in _SHARES.items()},
                        }
                        for floor in ("naive", "tuned")
                    },
                }
                for side in level.runs
            },
        }
        for level in levels
    ]


async def _measure(wanted: list[str], keep: Callable[[str, Any], None], *, quick: bool) -> list[str]:
    """Measure part by part, and `keep` each. Returns those that could not be measured."""
    failed = []
    async with scene() as stage:
        machine = await describe(stage.temporal, stage.database)
        parts = Parts(stage, quick=quick)
        for name in wanted:
            sys.stderr.write(f"== {name}\n")
            began = time.monotonic()
            measure: Callable[[], Awaitable[Any]] = getattr(parts, name)
            try:
                keep(name, {"on": machine, "quick": quick, "figures": await measure()})
            except Exception:  # the others took minutes, and stand
                traceback.print_exc()
                failed.append(name)
            sys.stderr.write(f"   {time.monotonic() - began:.0f} s\n")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(_PARTS)}")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: to see that it runs")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where performance.md goes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(_PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    wanted = [name for name in _PARTS if name in (given.parts or _PARTS[:-1])]
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}

    def keep(name: str, part: Any) -> None:
        results[name] = part
        given.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        write_report(results, given.docs)

    if failed := asyncio.run(_measure(wanted, keep, quick=given.quick)):
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
