"""The Python client against the real stack: updates, large results, and activities called without a workflow."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import ActivityFailureError, Client
from temporalio.common import RawValue, SearchAttributePair, TypedSearchAttributes

from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import IntegrationError, from_failure
from integration_service.contracts.names import INTEGRATION_DEFINITION
from integration_service.contracts.wire import parse
from tests.upstream import json_answer
from tests.world import World, definition_file, method

_PARAMS = {"type": "object", "properties": {"id": {"type": "integer"}}}


async def test_every_update_has_a_method(world: World, name: str) -> None:
    await world.publish(definition_file(name, version="1.1.0"))
    await world.publish(definition_file(name))
    connection = world.connection(await world.connect(name, version="1.0.0"))
    assert (await connection.settled())["status"] == "CONNECTED"
    assert (await connection.configure({"url": world.upstream.url}))["config"] == {"url": world.upstream.url}
    assert (await connection.test())["status"] == "CONNECTED"
    assert (await connection.upgrade("1.1.0"))["definitionVersion"] == "1.1.0"
    assert (await connection.disconnect(revoke=False))["status"] == "DISCONNECTED"
    assert (await connection.reconnect())["status"] == "CONNECTED"
    with pytest.raises(IntegrationError) as caught:
        await connection.authorize()
    assert caught.value.code == "VALIDATION_ERROR"
    await connection.delete()
    with pytest.raises(IntegrationError) as caught:
        await connection.test()
    assert caught.value.code == "INSTANCE_NOT_FOUND"


async def test_a_call_starts_with_its_search_attributes_once_they_are_known(world: World, name: str) -> None:
    """Who starts with others, or with none, has them set by the workflow."""
    instance, client = await world.instance(definition_file(name)), Integrations(world.temporal)
    wanted = {"IntegrationDefinition": [name], "IntegrationInstance": [instance["id"]], "IntegrationMethod": ["get"]}

    async def upserts_of(workflow_id: str) -> int:
        handle = world.temporal.get_workflow_handle(workflow_id)
        found = (await handle.describe()).search_attributes
        assert {key: list(values) for key, values in found.items() if key in wanted} == wanted
        events = (await handle.fetch_history()).events
        return sum(event.HasField("upsert_workflow_search_attributes_event_attributes") for event in events)

    call = MethodCall(instance_id=instance["id"], method="get", params={"id": 1})
    upserts = []
    for number in range(2):
        await client.call(call, workflow_id=f"{name}-{number}")
        upserts.append(await upserts_of(f"{name}-{number}"))
    wrong = TypedSearchAttributes([SearchAttributePair(INTEGRATION_DEFINITION, "another")])
    await world.temporal.execute_workflow(
        "ExecuteMethod", call.to_wire(), id=f"{name}-wrong", task_queue="integrations", search_attributes=wrong
    )
    assert [*upserts, await upserts_of(f"{name}-wrong")] == [1, 0, 1]


async def test_a_large_result_is_fetched_and_checked(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    body = {"text": "x" * 1_200_000}
    world.upstream.answers = [json_answer(body)]
    reference = (await world.call(instance, "get", {"id": 1}, large_result="reference")).result_ref
    assert reference is not None
    token = world.stack.environment["INTEGRATIONS_GATEWAY_TOKENS"]
    assert json.loads(await world.integrations.fetch(reference, token=token)) == body
    with pytest.raises(IntegrationError) as caught:
        await world.integrations.fetch(reference, token="x" * 40)
    assert caught.value.code == "AUTH_ERROR"
    with pytest.raises(IntegrationError) as caught:
        await world.integrations.fetch(reference.model_copy(update={"sha256": "0" * 64}), token=token)
    assert caught.value.code == "INTEGRITY_ERROR"
    nowhere = reference.model_copy(update={"url": "http://127.0.0.1:9/v1/results/x"})
    with pytest.raises(IntegrationError) as caught:
        await world.integrations.fetch(nowhere, token=token)
    assert caught.value.code == "UNAVAILABLE"


@pytest.fixture
async def plain(world: World) -> Client:
    """A client with Temporal's own converter, as a stranger has it."""
    return await Client.connect(world.stack.ready.temporal)


async def test_a_standalone_activity_gives_the_result_and_failures_with_all_four_fields(
    world: World, name: str, plain: Client
) -> None:
    methods = [method("get", "GET", "/things/{id}", paramSchema=_PARAMS)]
    instance = await world.instance(definition_file(name, methods=methods))
    world.upstream.answers = [json_answer({"id": 7})]

    async def run(call: object) -> object:
        return await plain.execute_activity(
            f"{name}.get",
            call,
            id=f"report-{uuid.uuid4()}",
            task_queue="integrations",
            start_to_close_timeout=timedelta(seconds=45),
            result_type=dict,
        )

    result = await run({"instanceId": instance["id"], "params": {"id": 7}})
    assert isinstance(result, dict)
    assert (result["data"], result["attempts"]) == ({"id": 7}, 1)
    torn = RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b'{"instanceId": "planted'))
    for wrong, path in (
        ({"instanceId": instance["id"], "params": {"id": "seven"}}, "params.id"),
        ({"instanceId": instance["id"], "params": {"id": 7}, "retries": 3}, "retries"),
        (torn, None),
    ):
        with pytest.raises(ActivityFailureError) as caught:
            await run(wrong)
        error = from_failure(caught.value.cause)
        assert error is not None
        assert (error.code, error.path) == ("VALIDATION_ERROR", path)
        assert set(caught.value.cause.details[0]) == {"code", "message", "retryable", "details"}
    assert len(world.upstream.seen) == 1


async def test_a_standalone_activity_by_the_temporal_cli(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    world.upstream.answers = [json_answer({"id": 7})]
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "temporal"),
        *("activity", "execute", "--type", f"{name}.get", "--task-queue", "integrations"),
        *("--activity-id", f"report-{uuid.uuid4()}", "--start-to-close-timeout", "45s", "-o", "json"),
        *("--input", json.dumps({"instanceId": instance["id"], "params": {"id": 7}})),
        env={**os.environ, **world.stack.environment},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert json.loads(out)["result"]["data"] == {"id": 7}


async def test_the_same_workflow_id_runs_once(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    world.upstream.answers = [json_answer({"id": 1}), json_answer({"id": 2})]
    call = parse(MethodCall, {"instanceId": instance["id"], "method": "get", "params": {"id": 7}})
    first = await world.integrations.call(call, workflow_id=f"once-{name}")
    again = await world.integrations.call(call, workflow_id=f"once-{name}")
    assert first.data == again.data == {"id": 1}
