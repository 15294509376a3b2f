"""The house: rooms, one-way imports, file sizes."""

from __future__ import annotations

import ast
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

_ROOT = Path(__file__).parent.parent.parent
_CODE = sorted(
    path
    for path in _ROOT.rglob("*.py")
    if not {".venv", ".dev", "docs", "tests", "build", "dist", "node_modules"} & set(path.relative_to(_ROOT).parts)
)


@pytest.fixture
def loggers() -> Iterator[None]:
    """As they were: the linter switches off every logger that it does not know."""
    found = logging.root.manager.loggerDict.values()
    were_on = [one for one in found if isinstance(one, logging.Logger) and not one.disabled]
    yield
    for one in were_on:
        one.disabled = False


@pytest.mark.usefixtures("loggers")
def test_imports_run_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_ROOT)
    monkeypatch.syspath_prepend(str(_ROOT / ".dev"))
    assert lint_imports(config_filename="pyproject.toml", cache_dir=None) == 0


def test_workflows_import_the_standard_library_temporalio_and_contracts_only() -> None:
    allowed = set(sys.stdlib_module_names) | {"temporalio", "integration_service"}
    for path in (_ROOT / "workflows").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for module in modules:
                assert module.split(".")[0] in allowed, f"{path.name} imports {module}"
                if module.startswith("integration_service"):
                    rooms = ("integration_service.contracts", "integration_service.workflows")
                    assert module.startswith(rooms), f"{path.name} imports {module}"


def test_there_are_no_cycles_between_rooms() -> None:
    graph = grimp.build_graph("integration_service", cache_dir=None)
    assert graph.nominate_cycle_breakers("integration_service") == set()


@pytest.mark.parametrize("path", _CODE, ids=lambda path: str(path.relative_to(_ROOT)))
def test_a_file_stays_short_and_is_named_for_a_noun(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}


def test_every_room_goes_into_the_wheel() -> None:
    import tomllib

    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    included = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    rooms = {path.relative_to(_ROOT).parts[0] for path in _CODE} - {"benchmarks"}  # run from a checkout
    assert rooms - included == set()
