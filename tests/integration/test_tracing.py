"""One trace from the caller, through workflow and activity, to the upstream."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from temporalio.client import Client
from temporalio.worker import Worker

from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import IntegrationError
from integration_service.plugin import IntegrationClientPlugin, IntegrationPlugin
from integration_service.settings import Settings
from integration_service.telemetry.process import Telemetry
from integration_service.telemetry.span_exporter import WordlessExporter
from integration_service.telemetry.tracing import Tracing
from tests.served import served
from tests.upstream import json_answer
from tests.world import World, definition_file, method


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def traced(world: World, spans: InMemorySpanExporter) -> AsyncIterator[tuple[Integrations, TracerProvider]]:
    """A client and a worker of a queue of their own, both with traces on."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(WordlessExporter(spans)))
    tracing = Tracing(provider, upstreams=["127.0.0.1"])
    client = await Client.connect(
        world.stack.ready.temporal, plugins=[IntegrationClientPlugin()], interceptors=[tracing.interceptor]
    )
    settings = Settings.from_environment({**world.stack.environment, "INTEGRATIONS_WORKER_LISTEN": ""})
    queue = f"traced-{uuid.uuid4()}"
    plugin = IntegrationPlugin(settings, telemetry=Telemetry(tracing=tracing))
    async with Worker(client, task_queue=queue, plugins=[plugin]):
        yield Integrations(client, task_queue=queue), provider
    provider.shutdown()


async def test_one_trace_reaches_the_upstream(
    world: World, traced: tuple[Integrations, TracerProvider], spans: InMemorySpanExporter, name: str
) -> None:
    integrations, provider = traced
    instance = await world.instance(definition_file(name))
    call = MethodCall(instance_id=instance["id"], method="get", params={"id": "planted-param"})
    with provider.get_tracer("caller").start_as_current_span("the caller") as caller:
        await integrations.call(call)
    trace_id = f"{caller.get_span_context().trace_id:032x}"
    version, received, parent, _ = world.upstream.seen[0].headers["traceparent"].split("-")
    assert (version, received) == ("00", trace_id)

    # A worker that starts has traces of its own.
    finished = {
        span.name: span
        for span in spans.get_finished_spans()
        if span.context is not None and f"{span.context.trace_id:032x}" == trace_id
    }
    assert {"the caller", "StartWorkflow:ExecuteMethod", "RunWorkflow:ExecuteMethod"} < finished.keys()
    sent, ran = finished["GET"], finished[f"RunActivity:{name}.get"]
    assert parent == f"{sent.context.span_id:016x}"  # type: ignore[union-attr]
    assert sent.attributes is not None
    assert sent.attributes["http.response.status_code"] == 200
    assert ran.attributes is not None
    assert ran.attributes["integration.definition"] == name
    assert (ran.attributes["integration.code"], ran.attributes["integration.attempt"]) == ("OK", 1)
    assert ran.attributes["integration.cached"] is False
    # Names and codes; what was asked for, and where, is in none of them.
    told = " ".join(span.to_json() for span in finished.values())
    assert "planted-param" not in told
    assert "/things" not in told


async def test_a_failure_is_told_without_its_words(
    world: World, traced: tuple[Integrations, TracerProvider], spans: InMemorySpanExporter, name: str
) -> None:
    integrations, _ = traced
    instance = await world.instance(definition_file(name, errorMessage="why"))
    world.upstream.answers = [json_answer({"why": "no planted-words here"}, 422)]
    with pytest.raises(IntegrationError, match="planted-words"):
        await integrations.call(MethodCall(instance_id=instance["id"], method="get", params={"id": 1}))
    finished = [span for span in spans.get_finished_spans() if name in str(dict(span.attributes or {})) + span.name]
    assert any(not span.status.is_ok for span in finished)
    assert any(event.name == "exception" for span in finished for event in span.events)
    assert "planted-words" not in " ".join(span.to_json() for span in spans.get_finished_spans())


async def test_a_host_that_is_not_named_gets_nothing_and_a_header_of_the_definition_stays(
    world: World, traced: tuple[Integrations, TracerProvider], name: str
) -> None:
    integrations, _ = traced
    own = method("own", "GET", "/own", request={"method": "GET", "path": "/own", "headers": {"traceparent": "mine"}})
    file = definition_file(name)
    await world.publish({**file, "methods": [*file["methods"], own]})
    elsewhere = await world.connect(name, config={"url": world.upstream.url.replace("127.0.0.1", "localhost")})
    here = await world.connect(name)
    await integrations.call(MethodCall(instance_id=elsewhere["id"], method="get", params={"id": 1}))
    await integrations.call(MethodCall(instance_id=here["id"], method="own", params={}))
    assert "traceparent" not in world.upstream.seen[0].headers
    assert world.upstream.seen[1].headers["traceparent"] == "mine"


async def test_spans_arrive_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[tuple[str, bytes]] = []

    async def collect(request: Request) -> Response:
        arrived.append((request.headers["content-type"], await request.body()))
        return Response(b"")

    async with served(Starlette(routes=[Route("/v1/traces", collect, methods=["POST"])])) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        tracing = Tracing.from_environment(service="integrations-worker")
        assert tracing is not None
        with tracing.send_span("GET", "api.test:443"):
            assert tracing.trace_id()
        await asyncio.to_thread(tracing.close)
    [(kind, body)] = arrived
    assert kind == "application/x-protobuf"
    assert b"integrations-worker" in body
    assert b"api.test" in body
