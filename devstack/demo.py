"""The main job, end to end, on real parts: what `integrations demo` shows."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import yaml
from rich.console import Console
from temporalio.client import Client

from integration_service.activities.execution.compiled import check_definition
from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.credentials import SealKey
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.names import connection_workflow_id
from integration_service.contracts.wire import JsonObject, parse
from integration_service.devstack import kinto
from integration_service.devstack.data_dir import DataDir
from integration_service.devstack.options import StackOptions
from integration_service.devstack.ports import HOST, claim_ports
from integration_service.devstack.stack import Stack
from integration_service.devstack.supervisor import Supervisor
from integration_service.devstack.waiting import answers_http, until
from integration_service.plugin import IntegrationClientPlugin
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.vault.seal import seal

_CATALOG = Path(__file__).resolve().parent.parent / "catalog"
_KINTO_WITHIN = timedelta(seconds=30)


@dataclass(frozen=True)
class Step:
    """One thing that was done, and where it stands in the Web UI."""

    what: str
    outcome: str
    link: str = ""

    def to_wire(self) -> JsonObject:
        return {"what": self.what, "outcome": self.outcome, **({"link": self.link} if self.link else {})}


async def run_demo(
    *, data_dir: Path | None, keep: bool, as_json: bool, stop: asyncio.Event, is_done: asyncio.Event
) -> None:
    """Start a stack, show the main job, print what happened, set `is_done`; with `keep` stay up until `stop`.

    A data directory that is given is kept; the temporary one is removed with all that was stored outside of it.
    """
    folder = (data_dir or _temporary_folder()).resolve()
    told = Console(stderr=True, highlight=False)
    stack = Stack(StackOptions(folder, 0, 0, 0, 0), on_progress=lambda text: told.print(f"  {text}", style="dim"))
    try:
        told.print("[bold]Starting Postgres, Temporal, a worker and a gateway[/]")
        async with stack, _kinto_server(folder) as upstream:
            demo = _Demo(stack=stack, told=told)
            await demo.run(kinto_url=upstream)
            _print(demo.steps, stack, as_json=as_json)
            is_done.set()
            if not keep:
                told.print("\nThe links open while the stack is up: [bold]integrations demo --keep[/] leaves it up.")
            else:
                told.print(f"\nThe stack stays up ([bold]--data-dir {folder}[/]); Ctrl-C ends it.")
                await stack.run_until(stop)
    finally:
        if data_dir is None:
            stack.destroy()
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Demo:
    stack: Stack
    told: Console
    steps: list[Step] = field(default_factory=list)

    async def run(self, *, kinto_url: str) -> None:
        client = await Client.connect(self.stack.ready.temporal, plugins=[IntegrationClientPlugin()])
        self._integrations = Integrations(client)
        await self._publish("temporal.yaml", "kinto.yaml")
        await self._without_credential()
        await self._with_credential(kinto_url)

    async def _publish(self, *files: str) -> None:
        self.told.print("[bold]Publishing two definitions[/]")
        async with Database(self.stack.ready.database) as database:
            for name in files:
                file = parse(DefinitionFile, yaml.safe_load((_CATALOG / name).read_text()))
                check_definition(file, publish=True)
                stored = await Definitions(database).apply(file, publish=True)
                self._note(f"definition {stored.name} {stored.version}", stored.status.value)

    async def _without_credential(self) -> None:
        self.told.print("[bold]An API without a credential: the Temporal server's own HTTP API[/]")
        instance = await self._connect("temporal", "this server", {"url": self.stack.http_api})
        result = await self._call(instance, "list_workflows", {"pageSize": 10})
        self._last(f"{len(result.get('executions', []))} workflow(s) listed")

    async def _with_credential(self, url: str) -> None:
        self.told.print("[bold]An API with a credential: a Kinto server, HTTP Basic[/]")
        password = secrets.token_urlsafe(18)
        async with httpx2.AsyncClient(trust_env=False) as http:
            account = await http.put(f"{url}/v1/accounts/demo", json={"data": {"password": password}})
            account.raise_for_status()
        instance = await self._connect("kinto", "our notes", {"url": url})
        await self._submit(instance, "a wrong password", "not the password")
        await self._submit(instance, "the right password, sealed", password)
        await self._call(instance, "put_bucket", {"bucket": "demo"})
        await self._call(instance, "put_collection", {"bucket": "demo", "collection": "notes"})
        where = {"bucket": "demo", "collection": "notes"}
        await self._call(instance, "create_record", {**where, "data": {"text": "written by a workflow"}})
        result = await self._call(instance, "list_records", where)
        self._last(f"record read back: {result['data'][0]['text']}")
        try:
            await self._call(instance, "create_record", {"bucket": "demo"})
        except IntegrationError as error:
            self._note("kinto.create_record with a param missing", str(error))

    async def _connect(self, definition: str, name: str, config: JsonObject) -> JsonObject:
        wanted = ConnectInstanceInput(instance_id=str(uuid.uuid4()), definition=definition, name=name, config=config)
        status = await self._integrations.connect(wanted)
        self._note(f"connect “{name}” to {definition}", status["status"], connection_workflow_id(status["id"]))
        return status

    async def _submit(self, instance: JsonObject, what: str, password: str) -> None:
        async with httpx2.AsyncClient(trust_env=False) as http:
            key = parse(SealKey, (await http.get(f"{self.stack.ready.gateway}/v1/seal-key")).json())
        secret = {"type": "basic", "basicAuth": {"username": "demo", "password": password}}
        connection = self._integrations.connection(instance["id"])
        status = await connection.submit_credentials(seal(key, instance["id"], json.dumps(secret).encode()))
        self._note(f"submit {what}", status["status"], connection_workflow_id(instance["id"]))

    async def _call(self, instance: JsonObject, method: str, params: JsonObject) -> Any:
        call = MethodCall(instance_id=instance["id"], method=method, params=params)
        handle = await self._integrations.start_call(call)
        name = f"{instance['definition']}.{method}"
        result = await self._integrations.result_of(handle)
        self._note(name, f"{result.status_code}, {result.duration_ms} ms", handle.id)
        return result.data

    def _note(self, what: str, outcome: str, workflow_id: str = "") -> None:
        ready = self.stack.ready
        link = f"{ready.ui}/namespaces/{ready.namespace}/workflows/{workflow_id}" if workflow_id else ""
        self.steps.append(Step(what, outcome, link))
        self.told.print(f"  {what}: {outcome}")

    def _last(self, outcome: str) -> None:
        step = self.steps[-1]
        self.steps[-1] = Step(step.what, f"{step.outcome}, {outcome}", step.link)
        self.told.print(f"  {outcome}")


@asynccontextmanager
async def _kinto_server(folder: Path) -> AsyncIterator[str]:
    port = claim_ports({"Kinto": 0})["Kinto"]
    data_dir = DataDir(folder)
    supervisor = Supervisor(data_dir)
    async with AsyncExitStack() as cleanup:
        cleanup.push_async_callback(supervisor.stop, kinto.NAME)
        await supervisor.start(kinto.server(data_dir.path, port, secret=secrets.token_hex(16)))
        ready = until(lambda: answers_http(port, "/v1/__heartbeat__"))
        await supervisor.while_alive(ready, within=_KINTO_WITHIN)
        yield f"http://{HOST}:{port}"


def _temporary_folder() -> Path:
    # Made anew by the stack, with the mode that Postgres's user needs; mkdtemp only finds a free name.
    folder = Path(tempfile.mkdtemp(prefix="integrations-demo-"))
    folder.rmdir()
    return folder


def _print(steps: list[Step], stack: Stack, *, as_json: bool) -> None:
    if as_json:
        result = {"steps": [step.to_wire() for step in steps], "ready": stack.ready.to_wire()}
        print(json.dumps(result, indent=2, ensure_ascii=False))  # noqa: T201 - the command's result
        sys.stdout.flush()
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    width = max(len(step.what) for step in steps)
    console.print("\nWhat happened", style="bold")
    for number, step in enumerate(steps, 1):
        console.print(f"{number:>3}  {step.what.ljust(width)}  {step.outcome}")
    console.print("\nIn the Web UI", style="bold")
    for number, step in enumerate(steps, 1):
        if step.link:
            console.print(f"{number:>3}  {step.link}")
