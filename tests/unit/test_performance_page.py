"""docs/performance.md says what was measured, and nothing else."""

from __future__ import annotations

import json

from benchmarks.processes import ROOT
from benchmarks.report import page


def test_the_page_is_made_of_the_figures() -> None:
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == page(results)
