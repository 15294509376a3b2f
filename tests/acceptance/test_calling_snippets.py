"""The programs of docs/calling run against the stack as they stand there; the page quotes them word by word."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.calls import MAX_RESULT_BYTES
from integration_service.storage.instances import Instances
from tests.acceptance.test_readme import run, snippet
from tests.world import World

ROOT = Path(__file__).resolve().parents[2]
SNIPPETS = ROOT / "docs" / "calling"
INSTANCE = "my temporal"
NODE = shutil.which("node") or "node"
KEY = "a key of the help desk"


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


@pytest.fixture
async def programs(typescript: Path) -> Path:
    """The TypeScript programs, type-checked and compiled."""
    for file in (*SNIPPETS.glob("typescript/*.ts"), SNIPPETS / "typescript" / "tsconfig.json"):
        shutil.copy(file, typescript)
    await run(NODE, str(typescript / "node_modules" / "typescript" / "bin" / "tsc"), "-p", ".", cwd=typescript)
    return typescript / "dist"


async def test_typescript(address: dict[str, str], programs: Path) -> None:
    out = await run(NODE, "call.js", cwd=programs, env=address)
    assert out.splitlines() == ["workflow 200 temporal", "refused params.pageSize"]
    out = await run(NODE, "worker.js", cwd=programs, env=address)
    assert out.splitlines()[-1] == '{"statusCode":200,"refused":"params.pageSize"}'


@dataclass
class HelpDesk:
    """The upstream of the README's `tickets`: an account that has grown since it was asked for first, and a queue of
    tickets that never moves."""

    asked: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, request: Request) -> Response:
        if request.headers.get("X-API-Key") != KEY:
            return JSONResponse({}, 401)
        if request.method == "POST":
            await self.over.wait()
        self.asked += 1
        return JSONResponse({"id": 1, "notes": "x" * (MAX_RESULT_BYTES if self.asked > 1 else 1)})


async def test_typescript_connects(world: World, address: dict[str, str], programs: Path) -> None:
    """With a key that the upstream refuses, and with one that it takes."""
    await world.publish(yaml.safe_load(snippet(name="tickets.yaml")))
    desk = world.upstream.handler = HelpDesk()
    env = {
        **address,
        "GATEWAY": world.stack.ready.gateway,
        "GATEWAY_TOKEN": world.stack.environment["INTEGRATIONS_GATEWAY_TOKENS"],
        "TICKETS_URL": world.upstream.url,
    }
    out = await run(NODE, "connect.js", cwd=programs, env={**env, "TICKETS_KEY": "wrong"})
    assert re.fullmatch(r"AUTH_ERROR .*401.*\n", out)
    out = await run(NODE, "connect.js", cwd=programs, env={**env, "TICKETS_KEY": KEY})
    assert out.splitlines() == ["CONNECTED ", "account [ 'id', 'notes' ]", "cancelled"]
    desk.over.set()


def test_the_page_quotes_the_files() -> None:
    page = (ROOT / "docs" / "calling.md").read_text()
    quoted = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```\n", page, re.DOTALL)
    for name, text in quoted:
        assert text == (SNIPPETS / name).read_text(), name
    shown = {name for name, _ in quoted}
    assert {"python/call.py", "typescript/call.ts", "typescript/connect.ts", "go/call.go", "java/Call.java"} <= shown
    for file in SNIPPETS.rglob("*.*"):
        name = str(file.relative_to(SNIPPETS))
        assert name in shown or f"(calling/{name})" in page, f"{name} is nowhere on the page"
