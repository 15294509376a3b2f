"""Every row of the data model's `IntegrationMethod`, over each protocol, against servers that others wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import Response

from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import JsonObject
from tests.graphql_server import graphql_server
from tests.openapi_server import openapi_server
from tests.soap_server import soap_server
from tests.world import World, definition_file, method

TAGS = {
    "type": "object",
    "required": ["tags"],
    "properties": {"tags": {"type": "array", "items": {"type": "string"}}},
    "additionalProperties": False,
}
NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 1}


@dataclass
class Forward:
    """Hands each request on to the real server, unless a fault was asked for first."""

    url: str
    faults: list[int | None] = field(default_factory=list)
    """For each next request: a status to answer in the server's place, None for no answer at all."""

    async def __call__(self, request: Request) -> Response:
        if self.faults:
            status = self.faults.pop(0)
            if status is not None:
                return Response("<html>", status)
            await asyncio.sleep(30)
        path = request.url.path.lstrip("/")
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.request(
                request.method,
                self.url + (f"/{path}" if path else ""),
                params=request.query_params.multi_items(),
                content=await request.body(),
                headers={
                    name: value
                    for name, value in request.headers.items()
                    if name not in ("host", "content-length", "accept-encoding")
                },
            )
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


@dataclass(frozen=True)
class Protocol:
    """One protocol's server and its method: how it is asked, and what it gives."""

    type: str
    url: str
    request: JsonObject
    request_transform: str
    response_transform: str
    tags: list[str]
    names: list[str]
    definition: JsonObject = field(default_factory=dict)

    def file(self, name: str, **changes: Any) -> JsonObject:
        """A definition with the one method `names`."""
        return definition_file(
            name,
            type=self.type,
            methods=[
                {
                    **method("names", "GET", "/"),
                    "paramSchema": TAGS,
                    "resultSchema": NAMES,
                    "requestTransform": self.request_transform,
                    "responseTransform": self.response_transform,
                    "idempotent": True,
                    "request": self.request,
                    **changes,
                }
            ],
            **self.definition,
        )


@asynccontextmanager
async def over_http() -> AsyncIterator[Protocol]:
    async with openapi_server() as url:
        yield Protocol(
            type="http",
            url=url,
            request={"method": "GET", "path": "/pets"},
            request_transform='{"tags": params.tags, "limit": 2}',
            response_transform="$.name",
            tags=["tame", "a b"],
            names=["Rex", "Zoë"],
        )


@asynccontextmanager
async def over_graphql() -> AsyncIterator[Protocol]:
    async with graphql_server() as server:
        yield Protocol(
            type="graphql",
            url=server.url,
            request={"document": "query ($ids: [ID!]) { books(ids: $ids) { title } }"},
            request_transform='{"ids": params.tags}',
            response_transform="books.title",
            tags=["1", "2"],
            names=["Ulysses", "Zoë — a life"],
        )


@asynccontextmanager
async def over_soap() -> AsyncIterator[Protocol]:
    async with soap_server() as server:
        async with httpx2.AsyncClient(trust_env=False) as http:
            wsdl = (await http.get(server.wsdl_url)).text
        yield Protocol(
            type="soap",
            url=server.url,
            request={"operation": "greet"},
            request_transform='{"name": $join(params.tags, " & ")}',
            response_transform="[$.*]",
            tags=["Zoë", "<b>"],
            names=["Hello Zoë & <b>"],
            definition={"wsdl": wsdl},
        )


@pytest.fixture(params=[over_http, over_graphql, over_soap], ids=["http", "graphql", "soap"], scope="module")
async def protocol(request: pytest.FixtureRequest) -> AsyncIterator[Protocol]:
    async with request.param() as running:
        yield running


@pytest.fixture
def server(world: World, protocol: Protocol) -> Forward:
    world.upstream.handler = Forward(protocol.url)
    return world.upstream.handler


async def test_it_stands_under_its_own_name(world: World, server: Forward, protocol: Protocol, name: str) -> None:
    """`name`, both schemas, both transforms."""
    instance = await world.instance(protocol.file(name))
    handle = await world.integrations.start_call(_call(instance, protocol))
    result = await world.integrations.result_of(handle)
    assert (result.data, result.status_code, result.attempts) == (protocol.names, 200, 1)
    activities = [
        event.activity_task_scheduled_event_attributes.activity_type.name
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert activities == [f"{name}.names"]


async def test_its_params_are_checked_before_anything_is_sent(
    world: World, server: Forward, protocol: Protocol, name: str
) -> None:
    instance = await world.instance(protocol.file(name))
    with pytest.raises(IntegrationError) as refused:
        await world.call(instance, "names", {"tags": [1]})
    assert (refused.value.code, refused.value.path) == ("VALIDATION_ERROR", "params.tags[0]")
    assert world.upstream.seen == []


async def test_its_result_is_checked(world: World, server: Forward, protocol: Protocol, name: str) -> None:
    instance = await world.instance(protocol.file(name, resultSchema={"type": "array", "maxItems": 0}))
    with pytest.raises(IntegrationError) as refused:
        await world.call(instance, "names", {"tags": protocol.tags})
    assert (refused.value.code, refused.value.path) == ("RESULT_VALIDATION_ERROR", "data")


async def test_its_timeout_bounds_a_send(world: World, server: Forward, protocol: Protocol, name: str) -> None:
    retry = {"maxRetries": 1, "backoffMultiplier": 1, "initialDelayMs": 10, "maxDelayMs": 10}
    instance = await world.instance(protocol.file(name, timeoutMs=300, retryConfig=retry))
    server.faults = [None, None]
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "names", {"tags": protocol.tags})
    assert failed.value.code == "TIMEOUT"
    assert len(world.upstream.seen) == 2


async def test_its_retries_come_as_configured(world: World, server: Forward, protocol: Protocol, name: str) -> None:
    retry = {"maxRetries": 2, "backoffMultiplier": 2, "initialDelayMs": 200, "maxDelayMs": 1000}
    instance = await world.instance(protocol.file(name, retryConfig=retry))
    server.faults = [503, 502]
    result = await world.call(instance, "names", {"tags": protocol.tags})
    assert (result.data, result.attempts) == (protocol.names, 3)
    first, second = world.upstream.gaps()
    assert first >= 0.2
    assert second >= 0.4
    server.faults = [404]
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "names", {"tags": protocol.tags})
    assert failed.value.code == "HTTP_404"


async def test_its_rate_limit_holds(world: World, server: Forward, protocol: Protocol, name: str) -> None:
    limits = {"requestsPerMinute": 120, "burstLimit": 1}
    instance = await world.instance(protocol.file(name, rateLimits=limits))
    results = await asyncio.gather(*(world.call(instance, "names", {"tags": protocol.tags}) for _ in range(3)))
    assert [(result.data, result.attempts) for result in results] == [(protocol.names, 1)] * 3
    assert all(gap > 0.4 for gap in world.upstream.gaps())


def _call(instance: JsonObject, protocol: Protocol) -> MethodCall:
    return MethodCall(instance_id=instance["id"], method="names", params={"tags": protocol.tags})
