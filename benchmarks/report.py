"""docs/performance.md and its picture, from the figures alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.plot import draw
from benchmarks.stages import HTTP, STAGES

_PICTURE = "images/performance.svg"
_SIDES = {"ours": "method call", "cached": "cached method call", "naive": "naive floor", "tuned": "tuned floor"}
_INTRODUCTION = """\
# Performance

`make bench` measures all of this and writes this page; `make bench-data` adds the part with ten million rows, and
`QUICK=1` runs few and short rounds, to see that it works. The figures themselves are in `benchmarks/results.json`.

A method call is compared with a **bare workflow**: one activity that makes the same httpx2 call to the same upstream,
on the same server, with nothing around it. It comes in two forms. The *naive floor* has the SDK's defaults. The *tuned
floor* has the settings of our own worker: no sandbox, uvloop, pollers that scale, slots by memory, Temporal's metrics,
no compression on the way to Temporal, the same converter. Neither has credentials, schemas, limits, a log, or a retry
that knows what it repeats.
Our calls come from one Python client, which after the first one of an instance starts them with their search
attributes and their method's [plan](calling.md#plans).

Worker, floors, load generator, upstream and servers are processes of their own on one machine. Sides take turns in
short slices. A ratio is the median of the rounds' ratios, so what disturbs a whole round falls out. CPU is the
processes' own, divided by calls.

So many callers that each wait for their answer have a mean latency of their number divided by the throughput. A median
below that mean is paid for by calls that take much longer: compare it together with p99.
"""
_NO_TEST = """\
None of this is a test: on another machine the figures are others. Where the service was measured for hours, under
kills and with thousands of tokens, [reliability.md](reliability.md) has the figures, refreshes among them.
"""


def write_report(results: dict[str, Any], docs: Path) -> None:
    """Write both, over what was there."""
    (docs / _PICTURE).parent.mkdir(parents=True, exist_ok=True)
    draw(results, docs / _PICTURE)
    (docs / "performance.md").write_text(page(results), encoding="utf-8")


def page(results: dict[str, Any]) -> str:
    """The page's text: the same figures give the same text."""
    sections = [_INTRODUCTION]
    for name, title, render in (
        ("calls", "Calls through `ExecuteMethod`", _calls),
        ("standalone", "Calls as standalone activities", _standalone),
        ("stages", "CPU of an attempt by stage", _stages),
        ("refreshes", "Punctuality of refreshes", _refreshes),
        ("instances", "Many instances", _amounts),
        ("data", "Many instances and a long log", _amounts),
        ("memory", "Memory of a worker", _memory),
        ("start", "Start of `integrations dev`", _start),
    ):
        if name in results:
            sections += [f"## {title}\n", render(results[name]["figures"]), _taken(results[name])]
    return "\n".join([*sections, _NO_TEST, _machine(results)])


def _calls(levels: Any) -> str:
    goal = next(level["sides"]["ours"]["of"] for level in levels if level["callers"] == 10)
    cached = next(level["sides"]["cached"]["of"]["tuned"]["p50"] for level in levels if level["callers"] == 10)
    rows = [
        ("throughput, of the naive floor", "at least 1.00", f"{goal['naive']['perSecond']:.2f}"),
        ("throughput, of the tuned floor", "at least 0.85", f"{goal['tuned']['perSecond']:.2f}"),
        ("p50, of the naive floor", "at most 1.00", f"{goal['naive']['p50']:.2f}"),
        ("p50, of the tuned floor", "at most 1.20", f"{goal['tuned']['p50']:.2f}"),
        ("p50 of a cached call, of the tuned floor", "below 1.00", f"{cached:.2f}"),
    ]
    return "\n".join(
        [
            "What was asked for, at 10 callers:\n",
            _table(("", "wanted", "measured"), rows),
            f"![Throughput and latency by callers, and CPU by process]({_PICTURE})\n",
            *(_sides(level) for level in levels),
        ]
    )


def _standalone(levels: Any) -> str:
    return "\n".join(_sides(level) for level in levels)


def _sides(level: Any) -> str:
    rows = [
        (
            _SIDES[side],
            f"{found['perSecond']:.1f}",
            f"{found['p50']:.0f}",
            f"{found['p99']:.0f}",
            *(
                f"{found['of'][floor][what]:.2f}"
                for floor in ("naive", "tuned")
                for what in ("perSecond", "p50", "p99")
            ),
            *(f"{found['cpuMs'][kind]:.1f}" for kind in ("worker", "temporal", "postgres")),
        )
        for side in _SIDES
        if (found := level["sides"].get(side))
    ]
    head = (
        f"{level['callers']} caller{'s' if level['callers'] > 1 else ''}",
        *("calls/s", "p50 ms", "p99 ms", "of naive: calls/s", "p50", "p99", "of tuned: calls/s", "p50", "p99"),
        *("CPU ms: worker", "Temporal", "Postgres"),
    )
    return _table(head, rows)


def _stages(found: Any) -> str:
    rows = [
        (
            f"`{name}`",
            *(f"{spent.get(stage, 0):.2f}" for stage in STAGES),
            f"**{sum(spent.values()) - spent.get(HTTP, 0):.2f}**",
            f"{spent.get(HTTP, 0):.2f}",
        )
        for name, spent in found["methods"].items()
    ]
    return "\n".join(
        [
            f"Milliseconds of a call on Python {found['python']}, its activity run alone in a process, on the worker's"
            "\nevent loop, one call after the other. The service's own pipeline is to take less than 2 ms, the HTTP"
            "\nclient left out. `limited` has a rate limit, `mapped` two transforms, with what the sandbox process"
            "\nspends on them. The cheapest of thirty batches stands here, ten in each of three processes: disturbance"
            "\nmakes work dearer, never cheaper. BENCH_PYTHON names the Python to take: what pyenv builds unasked lacks"
            "\nthe profile-guided optimisation of the image's, and may need up to a half more."
            "\n",
            _table(("method", *STAGES, "ours", HTTP), rows),
        ]
    )


def _amounts(amounts: Any) -> str:
    rows = [
        (one["title"], f"{one['perSecond']:.1f}", f"{one['p50']:.0f}", f"{one['p99']:.0f}", f"{one['ratio']:.2f}")
        for one in amounts
    ]
    return "\n".join(
        [
            "Calls by 10 callers to instances drawn from all of them; a database and a worker for each amount, in turn."
            "\nWanted is a throughput of at least 0.95 of the first.\n",
            _table(("in the database", "calls/s", "p50 ms", "p99 ms", "calls/s, of the first"), rows),
        ]
    )


def _refreshes(found: Any) -> str:
    return (
        f"{found['tokens']} tokens that expire within one minute. Each is due at a moment of its own before its "
        f"expiry.\nThe new one was stored {found['lateP50']:.2f} s after that moment (p50), {found['lateP99']:.2f} s "
        f"(p99), {found['lateMost']:.2f} s at the\nmost. The old one that came nearest to its expiry had "
        f"{found['leftLeast']:.1f} s left.\n"
    )


def _memory(found: Any) -> str:
    rows = [(count, f"{mib:.0f}") for count, mib in found.items() if count.isdigit()]
    return "\n".join(
        [
            "At its most, while so many calls wait for a slow upstream or for a slot. What is shared counts once.\n",
            _table(("calls in flight", "MiB"), rows),
            f"That is {found['kibPerCall']:.0f} KiB a call.\n",
        ]
    )


def _start(found: Any) -> str:
    return (
        f"Until `READY`: {found['first']:.1f} s on an empty data directory, {found['second']:.1f} s on the same one "
        "again.\n"
    )


def _taken(part: Any) -> str:
    quick = " Quick form: few and short rounds." if part["quick"] else ""
    return f"Measured {part['on']['date']} at commit {part['on']['commit']}.{quick}\n"


def _machine(results: dict[str, Any]) -> str:
    newest = max((part["on"] for part in results.values()), key=lambda on: on["date"])
    return "## The machine\n\n" + _table(("", ""), list(newest.items()))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
