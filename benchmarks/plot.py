"""The picture in docs/performance.md: throughput and p50 by callers, and where a call's CPU goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_COLOURS = {"ours": "#1f6feb", "cached": "#2da44e", "naive": "#8c959f", "tuned": "#57606a"}
_KINDS = {"worker": "#1f6feb", "temporal": "#d4a72c", "postgres": "#2da44e"}


def draw(results: dict[str, Any], to: Path) -> None:
    """An SVG; nothing without figures of calls. It needs matplotlib, from the dependency group `bench`."""
    if "calls" not in results:
        return
    # Only this command needs it.
    import matplotlib as mpl

    mpl.use("svg")
    # Without a date and with fixed ids the same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "performance"
    from matplotlib import pyplot as plt

    levels = results["calls"]["figures"]
    figure, (rate, latency, cpu) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    sides = list(_COLOURS)
    names = [str(level["callers"]) for level in levels]
    for axes, what, title in ((rate, "perSecond", "calls per second"), (latency, "p50", "p50, ms")):
        for number, side in enumerate(sides):
            at = [index + (number - 1.5) * 0.2 for index in range(len(levels))]
            axes.bar(at, [level["sides"][side][what] for level in levels], 0.2, label=side, color=_COLOURS[side])
        axes.set_xticks(range(len(levels)), names)
        axes.set_xlabel("callers")
        axes.set_title(title)
    rate.legend(frameon=False)
    ten = next(level["sides"] for level in levels if level["callers"] == 10)
    below = [0.0] * len(sides)
    for kind, colour in _KINDS.items():
        heights = [ten[side]["cpuMs"][kind] for side in sides]
        cpu.bar(sides, heights, 0.6, bottom=below, label=kind, color=colour)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    cpu.set_title("CPU of a call at 10 callers, ms")
    cpu.legend(frameon=False)
    for axes in (rate, latency, cpu):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(to, metadata={"Date": None})
    plt.close(figure)
