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
from integration_service.contracts.names import DEFAULT_SCOPE, connection_workflow_id, refresh_workflow_id
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject, parse
from integration_service.devstack import identity, kinto
from integration_service.devstack.browser import Person
from integration_service.devstack.data_dir import DataDir
from integration_service.devstack.identity import Application, User
from integration_service.devstack.options import StackOptions
from integration_service.devstack.ports import HOST, claim_ports
from integration_service.devstack.stack import Stack
from integration_service.devstack.supervisor import Supervisor
from integration_service.devstack.waiting import answers_http, until
from integration_service.plugin import IntegrationClientPlugin
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.keyring import Keyring
from integration_service.storage.vault.seal import seal

_CATALOG = Path(__file__).resolve().parent.parent / "catalog"
_SERVERS_WITHIN = timedelta(seconds=30)
_REFRESHED_WITHIN = timedelta(seconds=40)
_TOKEN_LIVES_S = 10
"""So short that its refresh is seen while the demo runs."""
_CLIENT_ID = "demo"
_PERSON = "ada"


@dataclass(frozen=True)
class _Servers:
    """The demo's upstreams, and what it knows at the provider."""

    kinto: str
    identity: str
    client_secret: str = field(repr=False)
    password: str = field(repr=False)


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
        async with stack, _servers(folder) as servers:
            demo = _Demo(stack=stack, told=told)
            await demo.run(servers)
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

    async def run(self, servers: _Servers) -> None:
        client = await Client.connect(self.stack.ready.temporal, plugins=[IntegrationClientPlugin()])
        self._client, self._integrations = client, Integrations(client)
        await self._publish("temporal.yaml", "kinto.yaml", "identity.yaml")
        await self._without_credential()
        await self._with_credential(servers.kinto)
        await self._with_oauth(servers)

    async def _publish(self, *files: str) -> None:
        self.told.print("[bold]Publishing three definitions[/]")
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

    async def _with_oauth(self, servers: _Servers) -> None:
        self.told.print("[bold]An API with OAuth: an OpenID provider, django-oauth-toolkit[/]")
        record = OAuthClientRecord(client_id=_CLIENT_ID, client_secret=servers.client_secret)
        keyring = Keyring.load(self.stack.environment["INTEGRATIONS_KEYRING"])
        async with Database(self.stack.ready.database) as database:
            clients = OAuthClients(database, keyring)
            await clients.store(scope=DEFAULT_SCOPE, definition="identity", client=record)
        instance = await self._connect("identity", "Ada's account", {"url": servers.identity})
        connection = self._integrations.connection(instance["id"])
        begun = await connection.authorize()
        async with Person(_PERSON, servers.password) as person:
            page = await person.connect(begun["authorizationUrl"])
        status = await connection.status()
        self._note(
            f"a person logs in and consents; the callback answers {page.status_code}",
            f"{status['status']}, token expires at {status['expiresAt']}",
            connection_workflow_id(instance["id"]),
        )
        result = await self._call(instance, "whoami", {})
        self._last(f"the token is one of {result['user']}")
        refresher = refresh_workflow_id(instance["id"])
        renewed = await self._await_refresh(instance["id"])
        self._note("the token is refreshed by its workflow, unasked", f"generation {renewed}", refresher)
        result = await self._call(instance, "whoami", {})
        self._last(f"with the new token, one of {result['user']}")

    async def _await_refresh(self, instance_id: str) -> int:
        """The token lives for seconds: its workflow refreshes it by its timer, soon."""
        handle = self._client.get_workflow_handle(refresh_workflow_id(instance_id))
        generation = 1

        async def is_refreshed() -> bool:
            nonlocal generation
            found: JsonObject = await handle.query("status", result_type=dict)
            generation = int(found["token"]["generation"])
            return generation > 1

        async with asyncio.timeout(_REFRESHED_WITHIN.total_seconds()):
            await until(is_refreshed)
        return generation

    async def _connect(self, definition: str, name: str, config: JsonObject) -> JsonObject:
        wanted = ConnectInstanceInput(instance_id=str(uuid.uuid4()), definition=definition, name=name, config=config)
        status = await self._integrations.connect(wanted)
        self._note(f"connect “{name}” to {definition}", status["status"], connection_workflow_id(status["id"]))
        return dict(status)

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
async def _servers(folder: Path) -> AsyncIterator[_Servers]:
    """Kinto and the identity provider, side by side."""
    ports = claim_ports({"Kinto": 0, "identity": 0})
    data_dir = DataDir(folder)
    supervisor = Supervisor(data_dir)
    servers = _Servers(
        kinto=f"http://{HOST}:{ports['Kinto']}",
        identity=identity.url(ports["identity"]),
        client_secret=secrets.token_urlsafe(24),
        password=secrets.token_urlsafe(18),
    )
    application = Application(
        client_id=_CLIENT_ID,
        client_secret=servers.client_secret,
        redirect_uris=(f"http://{HOST}/oauth/callback",),
    )
    async with AsyncExitStack() as cleanup:
        cleanup.push_async_callback(supervisor.stop, kinto.NAME, identity.NAME)
        await supervisor.start(
            kinto.server(data_dir.path, ports["Kinto"], secret=secrets.token_hex(16)),
            identity.server(
                data_dir.path,
                ports["identity"],
                secret=secrets.token_hex(16),
                applications=(application,),
                users=(User(username=_PERSON, password=servers.password),),
                access_seconds=_TOKEN_LIVES_S,
            ),
        )
        answering = until(lambda: answers_http(ports["Kinto"], "/v1/__heartbeat__"))
        await supervisor.while_alive(answering, within=_SERVERS_WITHIN)
        await supervisor.while_alive(identity.ready(ports["identity"]), within=_SERVERS_WITHIN)
        yield servers


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
