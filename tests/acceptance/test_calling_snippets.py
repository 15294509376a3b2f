"""The programs of docs/calling run against the stack as they stand there; the page quotes them word by word."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from integration_service.storage.instances import Instances
from tests.acceptance.test_readme import run
from tests.world import World

ROOT = Path(__file__).resolve().parents[2]
SNIPPETS = ROOT / "docs" / "calling"
INSTANCE = "my temporal"


@pytest.fixture
async def address(world: World) -> dict[str, str]:
    """The instance that they call, and where its Temporal is."""
    if all(one.name != INSTANCE for one in await Instances(world.database).list()):
        await world.publish(yaml.safe_load((ROOT / "catalog" / "temporal.yaml").read_text()))
        await world.connect("temporal", name=INSTANCE, config={"url": world.stack.ready.ui})
    return {"TEMPORAL_ADDRESS": world.stack.ready.temporal}


async def test_python_from_a_program(address: dict[str, str]) -> None:
    out = await run(sys.executable, str(SNIPPETS / "python" / "call.py"), env=address)
    assert out.splitlines() == ["workflow 200 temporal", "refused params.pageSize", "activity 200"]


async def test_python_from_a_workflow(address: dict[str, str]) -> None:
    path = {**address, "PYTHONPATH": str(ROOT / ".dev")}
    out = await run(sys.executable, str(SNIPPETS / "python" / "worker.py"), env=path)
    assert out.splitlines() == [str({"refused": "params.pageSize", "statusCode": 200}), "200"]


async def test_typescript(address: dict[str, str], typescript: Path) -> None:
    for file in (*SNIPPETS.glob("typescript/*.ts"), SNIPPETS / "typescript" / "tsconfig.json"):
        shutil.copy(file, typescript)
    node = shutil.which("node") or "node"
    await run(node, str(typescript / "node_modules" / "typescript" / "bin" / "tsc"), "-p", ".", cwd=typescript)
    out = await run(node, "dist/call.js", cwd=typescript, env=address)
    assert out.splitlines() == ["workflow 200 temporal", "refused params.pageSize"]
    out = await run(node, "dist/worker.js", cwd=typescript, env=address)
    assert out.splitlines()[-1] == '{"statusCode":200,"refused":"params.pageSize"}'


def test_the_page_quotes_the_files() -> None:
    page = (ROOT / "docs" / "calling.md").read_text()
    quoted = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```\n", page, re.DOTALL)
    for name, text in quoted:
        assert text == (SNIPPETS / name).read_text(), name
    shown = {name for name, _ in quoted}
    assert {"python/call.py", "typescript/call.ts", "go/call.go", "java/Call.java"} <= shown
    for file in SNIPPETS.rglob("*.*"):
        name = str(file.relative_to(SNIPPETS))
        assert name in shown or f"(calling/{name})" in page, f"{name} is nowhere on the page"
