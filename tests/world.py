"""Short words for what most tests do: publish a definition, connect an instance, call a method."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx2
from temporalio.client import Client

from integration_service.activities.execution.compiled import check_definition
from integration_service.client import Connection, Integrations
from integration_service.contracts.calls import MethodCall, MethodResult
from integration_service.contracts.credentials import Sealed, SealKey
from integration_service.contracts.definitions import DefinitionFile, IntegrationDefinition, IntegrationDefinitionStatus
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.names import DEFAULT_SCOPE
from integration_service.contracts.wire import JsonObject, parse
from integration_service.devstack.stack import Stack
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.vault.seal import seal
from tests.upstream import Upstream


def definition_file(name: str, **changes: Any) -> JsonObject:
    """A small definition: `get` (GET /things/{id}) and `post` (POST /things), no authentication."""
    return {
        "name": name,
        "description": "Things.",
        "version": "1.0.0",
        "type": "http",
        "authType": "none",
        "baseUrl": "{config.url}",
        "configSchema": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]},
        "methods": [method("get", "GET", "/things/{id}"), method("post", "POST", "/things")],
        **changes,
    }


def method(name: str, verb: str, path: str, **changes: Any) -> JsonObject:
    """One method that takes any object and gives anything; waits are short."""
    return {
        "name": name,
        "description": f"{verb} {path}",
        "paramSchema": {"type": "object"},
        "resultSchema": True,
        "request": {"method": verb, "path": path},
        "retryConfig": {"maxRetries": 3, "backoffMultiplier": 2, "initialDelayMs": 100, "maxDelayMs": 1000},
        **changes,
    }


@dataclass
class World:
    """The stack with a test's own upstream."""

    stack: Stack
    database: Database
    temporal: Client
    upstream: Upstream

    @cached_property
    def integrations(self) -> Integrations:
        """One for all calls, as a service has it: from the second call of a method on it brings the method's plan."""
        return Integrations(self.temporal)

    async def publish(self, file: JsonObject) -> IntegrationDefinition:
        parsed = parse(DefinitionFile, file)
        check_definition(parsed, publish=True)
        return await Definitions(self.database).apply(parsed, publish=True)

    async def move(self, definition: str, to: str, *, version: str | None = None) -> None:
        """The definition's next step in life, in the global scope."""
        await Definitions(self.database).move(DEFAULT_SCOPE, definition, version, IntegrationDefinitionStatus(to))

    async def connect(self, definition: str, *, config: JsonObject | None = None, **more: Any) -> JsonObject:
        """A new instance of `definition`, its `url` the test's upstream; returns its status object."""
        asked = ConnectInstanceInput(
            instance_id=str(uuid.uuid4()),
            definition=definition,
            name=more.pop("name", f"instance {uuid.uuid4().hex[:8]}"),
            config={"url": self.upstream.url} if config is None else config,
            **more,
        )
        return await self.integrations.connect(asked)

    async def instance(self, file: JsonObject) -> JsonObject:
        """Publish and connect."""
        await self.publish(file)
        return await self.connect(file["name"])

    def connection(self, instance: JsonObject) -> Connection:
        return self.integrations.connection(instance["id"])

    async def submit(self, instance: JsonObject, credential: JsonObject) -> JsonObject:
        """Seal and submit ``{"type", …}``; returns the status object."""
        return await self.connection(instance).submit_credentials(await self.sealed(instance["id"], credential))

    async def sealed(self, instance_id: str, credential: JsonObject) -> Sealed:
        async with httpx2.AsyncClient() as http:
            key = parse(SealKey, (await http.get(f"{self.stack.ready.gateway}/v1/seal-key")).json())
        return seal(key, instance_id, json.dumps(credential).encode())

    async def call(
        self, instance: JsonObject, method: str, params: JsonObject | None = None, **more: Any
    ) -> MethodResult:
        call = MethodCall(instance_id=instance["id"], method=method, params=params or {}, **more)
        return await self.integrations.call(call)

    async def audit(self, instance: JsonObject) -> list[JsonObject]:
        """The instance's log rows, oldest first."""
        rows = await self.database.all(
            "SELECT * FROM audit.executions WHERE instance_id = %(id)s ORDER BY recorded_at",
            {"id": instance["id"]},
        )
        return [dict(row) for row in rows]
