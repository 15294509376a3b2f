"""An upstream, or a caller, that means harm: each ends in its error code, once, and leaks nothing."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest
from starlette.responses import Response
from temporalio.client import Client, WorkflowFailureError, WorkflowHistory
from temporalio.common import RetryPolicy
from temporalio.converter import DataConverter

from integration_service.contracts.errors import IntegrationError, from_failure
from integration_service.contracts.instances import Observed
from integration_service.contracts.names import (
    CONNECT_INSTANCE,
    EXECUTE_METHOD,
    REFRESH_OAUTH,
    TASK_QUEUE,
    connection_workflow_id,
    control_queue,
)
from tests.skipping import histories
from tests.upstream import json_answer
from tests.waiting import eventually
from tests.world import World, definition_file, method

pytestmark = pytest.mark.slow

KEY = "987654321098"
CREDENTIAL = {"type": "api_key", "apiKey": {"key": KEY, "headerOrParam": "X-Key", "inHeader": True}}
INTEGERS = {"additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize("body", ["[" * 400 + "]" * 400, "[" * 240 + "]" * 240, '{"a": 1e999}', "{"])
async def test_an_answer_that_cannot_be_read_is_told_once(world: World, name: str, body: str) -> None:
    world.upstream.answers = [Response(body, media_type="application/json")]
    instance = await world.instance(definition_file(name))
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "post", {"a": 1})
    assert caught.value.code == "MALFORMED_RESPONSE"
    assert len(world.upstream.seen) == 1


async def test_a_failure_stays_small_whatever_the_upstream_names_its_keys(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({"K" * 3_000_000: "x"})]
    picky = method("post", "POST", "/x", resultSchema=INTEGERS)
    instance = await world.instance(definition_file(name, methods=[picky]))
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "post")
    assert caught.value.code == "RESULT_VALIDATION_ERROR"
    assert len(str(caught.value.details)) < 2000
    assert len(world.upstream.seen) == 1


async def test_a_large_answer_full_of_errors_does_not_hold_the_worker(world: World, name: str) -> None:
    world.upstream.answers = [Response("[" + ",".join(["1"] * 400_000) + "]", media_type="application/json")]
    picky = method("get", "GET", "/x", resultSchema={"items": {"type": "string"}})
    instance = await world.instance(definition_file(name, methods=[picky]))
    with pytest.raises(IntegrationError) as caught:
        await asyncio.wait_for(world.call(instance, "get"), 10)
    assert (caught.value.code, caught.value.path) == ("RESULT_VALIDATION_ERROR", "data[0]")


async def test_an_echoed_credential_is_in_no_error_path_and_no_number(world: World, name: str) -> None:
    methods = [method("get", "GET", "/x", resultSchema=INTEGERS), method("any", "GET", "/x")]
    pending = await world.instance(definition_file(name, authType="api_key", methods=methods))
    connected = await world.submit(pending, CREDENTIAL)
    world.upstream.answers = [json_answer({KEY: "x", "n": int(KEY)})]
    with pytest.raises(IntegrationError) as caught:
        await world.call(connected, "get")
    assert KEY not in f"{caught.value} {caught.value.details}"
    assert (await world.call(connected, "any")).data == {"[REDACTED]": "x", "n": "[REDACTED]"}


async def test_a_throttle_that_the_definition_does_not_retry_fails_at_once(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 429, Retry_After="1")]
    picky = {
        "maxRetries": 3,
        "backoffMultiplier": 1,
        "initialDelayMs": 1,
        "maxDelayMs": 1,
        "retryableErrors": ["TIMEOUT"],
    }
    instance = await world.instance(definition_file(name, methods=[method("get", "GET", "/x", retryConfig=picky)]))
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "get")
    assert caught.value.code == "RATE_LIMITED"
    assert len(world.upstream.seen) == 1


async def test_an_upstream_that_asks_for_no_wait_is_not_hammered(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 429, Retry_After="0")]
    instance = await world.instance(definition_file(name))
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "get", {"id": 1}, deadline_ms=4000)
    assert caught.value.code in ("RATE_LIMITED", "TIMEOUT")  # whichever the deadline meets
    assert len(world.upstream.seen) <= 7


async def test_every_attempt_of_a_direct_caller_has_its_row(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 429, Retry_After="1"), json_answer({})]
    instance = await world.instance(definition_file(name))
    await world.temporal.execute_activity(
        f"{name}.get",
        {"instanceId": instance["id"], "params": {"id": 1}},
        id=str(uuid.uuid4()),
        task_queue="integrations",
        start_to_close_timeout=timedelta(seconds=20),
        retry_policy=RetryPolicy(maximum_attempts=3),
    )
    assert [row["status"] for row in await world.audit(instance)] == ["FAILED", "SUCCEEDED"]


async def test_the_same_workflow_id_runs_the_call_once(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    from integration_service.contracts.calls import MethodCall

    call = MethodCall(instance_id=instance["id"], method="post", params={"a": 1})
    first = await world.integrations.call(call, workflow_id=f"{name}-once")
    assert await world.integrations.call(call, workflow_id=f"{name}-once") == first
    assert len(world.upstream.seen) == 1


async def test_an_input_that_is_no_json_fails_the_workflow(world: World) -> None:
    plain = await Client.connect(world.stack.ready.temporal, data_converter=DataConverter.default)
    with pytest.raises(WorkflowFailureError) as caught:
        await plain.execute_workflow("ExecuteMethod", b"\xff\x00", id=str(uuid.uuid4()), task_queue="integrations")
    error = from_failure(caught.value.cause)
    assert error is not None
    assert error.code == "VALIDATION_ERROR"


async def test_news_of_a_refusal_never_outlives_a_disconnect_or_a_new_credential(world: World, name: str) -> None:
    file = definition_file(name, authType="api_key")
    connected = await world.submit(await world.instance(file), CREDENTIAL)
    owner = world.temporal.get_workflow_handle(connection_workflow_id(connected["id"]))
    for update, status in (("disconnect", "DISCONNECTED"), ("submit", "CONNECTED")):
        changing = asyncio.create_task(
            world.submit(connected, CREDENTIAL) if update == "submit" else world.connection(connected).update(update)
        )
        for _ in range(5):
            await owner.signal("observed", Observed(generation=1, code="AUTH_ERROR").to_wire())
        assert (await changing)["status"] == status
        if update == "disconnect":
            # Queued behind everything that the signals started.
            assert (await world.connection(connected).update("await_settled"))["status"] == status


async def test_a_long_lived_connection_continues_as_new_and_is_the_same(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    owner = world.temporal.get_workflow_handle(connection_workflow_id(instance["id"]))
    first = (await owner.describe()).run_id
    for count in range(12):
        config = {"url": world.upstream.url, "padding": f"{count}" + "x" * 300_000}
        await world.connection(instance).configure(config)
        if (await owner.describe()).run_id != first:
            break
    assert (await owner.describe()).run_id != first
    status = await world.connection(instance).update("await_settled")
    assert (status["status"], status["config"]) == ("CONNECTED", config)
    assert (await world.connection(instance).update("disconnect"))["status"] == "DISCONNECTED"


@pytest.mark.parametrize("kind", [EXECUTE_METHOD, CONNECT_INSTANCE, REFRESH_OAUTH])
async def test_a_run_that_a_schedule_began_reads_its_starters_input(world: World, name: str, kind: str) -> None:
    """It continues another too, but nobody handed anything on to it."""
    queue = control_queue(TASK_QUEUE) if kind == REFRESH_OAUTH else TASK_QUEUE
    handle = await world.temporal.start_workflow(
        kind, {"instanceId": ""}, id=f"{name}-cron", task_queue=queue, cron_schedule="@every 1s"
    )

    async def third() -> list[WorkflowHistory] | None:
        runs = await histories(world.temporal, handle.id)
        return runs if len(runs) > 2 else None

    [_, second, *_] = await eventually(third)
    await world.temporal.get_workflow_handle(handle.id).terminate()
    failed = second.events[-1].workflow_execution_failed_event_attributes
    assert failed.failure.application_failure_info.type == "VALIDATION_ERROR"
