"""The README runs: its snippets are taken out of it and executed against the stack, addresses apart."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.devstack.stack import Stack
from tests.upstream import Upstream
from tests.world import World

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
_FENCE = re.compile(r"(?:<!-- test: (?P<name>[\w.]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)\n```", re.DOTALL)
SNIPPETS = [match.groupdict() for match in _FENCE.finditer(README)]
INSTANCE = "my temporal"


def snippet(*, name: str | None = None, language: str | None = None, holding: str = "") -> str:
    """The one fenced block that fits."""
    (found,) = [
        one["text"]
        for one in SNIPPETS
        if name in (None, one["name"]) and language in (None, one["language"]) and holding in one["text"]
    ]
    return found


async def run(
    *command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, within_s: float = 60
) -> str:
    """A command's stdout; fails with all that it said."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=None if env is None else {**os.environ, **env},
        cwd=cwd,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within_s)
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, f"{command}\n{out.decode()}\n{err.decode()}"
    return out.decode()


async def run_bash(text: str, stack: Stack, *, cwd: Path = ROOT) -> str:
    """A bash snippet, `integrations` and `temporal` being this environment's, against `stack`."""
    scripts = Path(sys.executable).parent
    env = {**stack.environment, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    return await run("bash", "-euc", text.replace("uv run integrations", "integrations"), env=env, cwd=cwd)


@pytest.fixture
async def my_temporal(stack: Stack, world: World) -> str:
    """The instance that the snippets call, made by the README's own commands."""
    listed = await run_bash("integrations instance list --json", stack)
    if f'"{INSTANCE}"' in listed:
        return ""
    return await run_bash(snippet(name="walk").replace("http://127.0.0.1:8233", stack.ready.ui), stack)


def test_the_commands_to_start_with_stand_at_the_top() -> None:
    first = SNIPPETS[0]["text"].splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["uv run integrations demo", "uv run pytest"]
    assert "uv run pytest" in [one["text"] for one in SNIPPETS]


async def test_connecting_and_calling_by_the_command_line(my_temporal: str, stack: Stack) -> None:
    out = my_temporal or await run_bash(snippet(name="walk").splitlines()[-1], stack)
    assert "list_workflows" in out
    assert "SUCCEEDED" in out


async def test_the_temporal_cli(my_temporal: str, stack: Stack) -> None:
    out = await run_bash(snippet(language="bash", holding="temporal workflow start"), stack)
    assert "COMPLETED" in out
    assert '"statusCode":200' in out


async def test_python(my_temporal: str, stack: Stack) -> None:
    program = snippet(language="python").replace("127.0.0.1:7233", stack.ready.temporal)
    out = await run(sys.executable, "-c", program)
    assert re.fullmatch(r"200 [1-5]", out.strip())


async def test_typescript(my_temporal: str, stack: Stack, typescript: Path) -> None:
    program = snippet(language="typescript").replace("127.0.0.1:7233", stack.ready.temporal)
    (typescript / "report.mjs").write_text(program)
    out = await run("node", "report.mjs", cwd=typescript)
    assert re.fullmatch(r"200 [1-5]", out.strip())


async def test_the_definition_with_an_api_key(stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    async def help_desk(request: Request) -> Response:
        if request.headers.get("x-api-key") != "the API key":
            return JSONResponse({}, 401)
        return JSONResponse({"id": 7}, 201) if request.method == "POST" else JSONResponse({"account": "acme"})

    upstream.handler = help_desk
    for name in ("tickets.yaml", "key.json"):
        (tmp_path / name).write_text(snippet(name=name))
    out = await run_bash(snippet(name="tickets").replace("https://api.example.com", upstream.url), stack, cwd=tmp_path)
    assert "status: CONNECTED" in out
    assert '"id": 7' in out
    assert "create_ticket" in out.split('"id": 7')[1]
    assert upstream.seen[-1].path == "/projects/ops/tickets"
    assert upstream.seen[-1].body == b'{"title":"Printer on fire"}'
    assert "idempotency-key" in upstream.seen[-1].headers
