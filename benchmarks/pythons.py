"""Another Python than the one that runs: the figures by stage are asked for on 3.13."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

STAGES_ON = "3.13"
_NAMED = "BENCH_PYTHON"


def command() -> tuple[str, ...]:
    """What starts `STAGES_ON` with this project in an environment of its own, made by uv and thrown away; this very
    Python where it is that one, or where there is no other."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = _found()
    is_ours = ours == STAGES_ON and _NAMED not in os.environ
    if is_ours or found is None or shutil.which("uv") is None:
        return (sys.executable,)
    return ("uv", "run", "--quiet", "--isolated", "--python", found, "python")


def _found() -> str | None:
    """A program of that version: the one that BENCH_PYTHON names, or one under pyenv or on the path."""
    if named := os.environ.get(_NAMED):
        return named
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(pyenv.glob(f"{STAGES_ON}.*/bin/python{STAGES_ON}"))
    return str(installed[-1]) if installed else shutil.which(f"python{STAGES_ON}")
