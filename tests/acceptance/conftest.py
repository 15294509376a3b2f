"""Acceptance tests start programs and whole stacks: all of them are slow."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_SNIPPETS = _HERE.parents[1] / "docs" / "calling" / "typescript"
_OLDEST_NODE = 20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def typescript(pytestconfig: pytest.Config) -> Path:
    """A folder with what `docs/calling/typescript` needs, in `node_modules`; kept until its package.json changes."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are needed to run the TypeScript snippets")
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < _OLDEST_NODE:
        pytest.skip(f"the TypeScript snippets need node {_OLDEST_NODE} or later, not {version.strip()}")
    wanted = (_SNIPPETS / "package.json").read_bytes()
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"typescript-{hashlib.sha256(wanted).hexdigest()[:12]}")
    done = folder / "installed"
    if not done.exists():
        (folder / "package.json").write_bytes(wanted)
        install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
        subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=300)
        done.touch()
    return folder
