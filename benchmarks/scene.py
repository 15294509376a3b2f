"""What all benchmarks play on: a stack as `dev` runs it, an upstream, the two floors, a load generator."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from temporalio.client import Client

from benchmarks.processes import ROOT, Generator, process
from integration_service.activities.execution.compiled import check_definition
from integration_service.client import Integrations
from integration_service.contracts.credentials import SealKey
from integration_service.contracts.definitions import DefinitionFile, IntegrationDefinition
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.wire import JsonObject, parse
from integration_service.devstack.data_dir import open_data_dir
from integration_service.devstack.options import StackOptions
from integration_service.devstack.stack import Stack
from integration_service.plugin import IntegrationClientPlugin
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.vault.seal import seal

FLOORS = ("naive", "tuned")
_ID = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"], "additionalProperties": False}
_THING = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "owner": {"type": "object", "properties": {"login": {"type": "string"}}, "required": ["login"]},
    },
    "required": ["id", "name"],
}


@dataclass(frozen=True)
class Scene:
    """Everything answers. `url` is the upstream's, `instance` one connected instance of definition `bench`, `seal_key`
    what credentials are sealed for, `passwords` the file with those of Postgres."""

    stack: Stack
    database: Database
    temporal: Client
    load: Generator
    url: str
    instance: str
    seal_key: SealKey
    passwords: Path


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """Build it in a temporary folder, and take it down."""
    folder = Path(tempfile.mkdtemp(prefix="integrations-bench-"))
    stack = Stack(StackOptions(folder / "data", temporal_port=0, ui_port=0, gateway_port=0, postgres_port=0))
    try:
        async with AsyncExitStack() as opened:
            upstream = await opened.enter_async_context(process("benchmarks.upstream", environment={}))
            assert upstream.stdout is not None  # noqa: S101 - a pipe
            url = f"http://127.0.0.1:{(await upstream.stdout.readline()).decode().strip()}"
            await opened.enter_async_context(stack)
            database = await opened.enter_async_context(Database(stack.ready.database))
            temporal = await Client.connect(stack.ready.temporal, plugins=[IntegrationClientPlugin()])
            for kind in FLOORS:
                await opened.enter_async_context(
                    process("benchmarks.floor_worker", kind, stack.ready.temporal, floor_queue(kind), environment={})
                )
            load = await opened.enter_async_context(process("benchmarks.load", stack.ready.temporal, environment={}))
            async with httpx2.AsyncClient() as http:
                key = parse(SealKey, (await http.get(f"{stack.ready.gateway}/v1/seal-key")).json())
            instance = await _connected(key, database, temporal, url)
            passwords = open_data_dir(folder / "data").database_passwords
            yield Scene(stack, database, temporal, Generator(load), url, instance, key, passwords)
    finally:
        stack.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def floor_queue(kind: str) -> str:
    return f"floor-{kind}"


def definition(name: str, **changes: Any) -> JsonObject:
    """Methods `get`, the same `cached`, `mapped` through transforms, `limited`, and `slow`."""
    return {
        "name": name,
        "description": "What benchmarks call.",
        "version": "1.0.0",
        "type": "http",
        "authType": "api_key",
        "baseUrl": "{config.url}",
        "configSchema": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]},
        "methods": [
            _method("get"),
            _method("cached", cache={"ttlMs": 3_600_000}),
            _method("mapped", requestTransform="{'id': params.id}", responseTransform="{'id': id, 'name': name}"),
            _method("limited", rateLimits={"requestsPerMinute": 1_000_000, "burstLimit": 100_000}),
            _method("slow", request={"method": "GET", "path": "/slow/10000/{id}"}),
        ],
        **changes,
    }


def _method(name: str, **changes: Any) -> JsonObject:
    return {
        "name": name,
        "description": "A thing by its id.",
        "paramSchema": _ID,
        "resultSchema": _THING,
        "request": {"method": "GET", "path": "/things/{id}"},
        **changes,
    }


async def publish(database: Database, file: JsonObject) -> IntegrationDefinition:
    parsed = parse(DefinitionFile, file)
    await asyncio.to_thread(check_definition, parsed, publish=True)
    return await Definitions(database).apply(parsed, publish=True)


async def _connected(key: SealKey, database: Database, temporal: Client, url: str) -> str:
    await publish(database, definition("bench"))
    integrations = Integrations(temporal)
    instance_id = str(uuid.uuid4())
    wanted = ConnectInstanceInput(instance_id=instance_id, definition="bench", name="bench", config={"url": url})
    await integrations.connect(wanted)
    secret = {"type": "api_key", "apiKey": {"key": "benchmark-key", "headerOrParam": "X-Api-Key", "inHeader": True}}
    sealed = seal(key, instance_id, json.dumps(secret).encode())
    status = await integrations.connection(instance_id).submit_credentials(sealed)
    if status["status"] != "CONNECTED":
        raise RuntimeError(f"the benchmark's instance is {status['status']}")
    return instance_id


__all__ = ["FLOORS", "ROOT", "Scene", "definition", "floor_queue", "publish", "scene"]
