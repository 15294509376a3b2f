"""The definition's limits hold whoever calls: retry policy in history, foreign callers, standalone activities."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import ActivityFailureError, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from integration_service.contracts.calls import MAX_RESULT_BYTES, MethodResult
from integration_service.contracts.errors import IntegrationError, from_failure
from integration_service.contracts.wire import JsonObject
from tests.upstream import json_answer
from tests.world import World, definition_file, method

_TWO_RETRIES = {"maxRetries": 2, "backoffMultiplier": 3, "initialDelayMs": 50, "maxDelayMs": 400}


@workflow.defn(name="ForeignCaller")
class ForeignCaller:
    """Another team's workflow, with a policy of its own."""

    @workflow.run
    async def run(self, activity: str, call: JsonObject, attempts: int) -> JsonObject:
        answer: JsonObject = await workflow.execute_activity(
            activity,
            call,
            task_queue="integrations",
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(maximum_attempts=attempts, initial_interval=timedelta(milliseconds=1)),
        )
        return answer


async def _foreign(world: World, activity: str, call: JsonObject, attempts: int) -> JsonObject:
    queue = f"foreign-{uuid.uuid4()}"
    async with Worker(
        world.temporal, task_queue=queue, workflows=[ForeignCaller], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        answer: JsonObject = await world.temporal.execute_workflow(
            ForeignCaller.run, args=[activity, call, attempts], id=str(uuid.uuid4()), task_queue=queue
        )
        return answer


async def test_history_shows_the_method_under_its_own_name_with_the_definitions_retry_policy(
    world: World, name: str
) -> None:
    instance = await world.instance(
        definition_file(name, methods=[method("get", "GET", "/x", retryConfig=_TWO_RETRIES, timeoutMs=4000)])
    )
    workflow_id = str(uuid.uuid4())
    await world.integrations.call(_call(instance, "get"), workflow_id=workflow_id)
    history = await world.temporal.get_workflow_handle(workflow_id).fetch_history()
    (scheduled,) = (
        event.activity_task_scheduled_event_attributes
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    )
    assert scheduled.activity_type.name == f"{name}.get"
    policy = scheduled.retry_policy
    assert policy.maximum_attempts == 3
    assert policy.initial_interval.ToTimedelta() == timedelta(milliseconds=50)
    assert policy.maximum_interval.ToTimedelta() == timedelta(milliseconds=400)
    assert policy.backoff_coefficient == 3
    assert scheduled.start_to_close_timeout.ToTimedelta() == timedelta(seconds=19)


async def test_a_foreign_workflow_that_asks_for_100_attempts_gets_the_definitions_limit(
    world: World, name: str
) -> None:
    world.upstream.answers = [json_answer({}, 503)]
    instance = await world.instance(
        definition_file(name, methods=[method("get", "GET", "/x", retryConfig=_TWO_RETRIES)])
    )
    with pytest.raises(WorkflowFailureError) as caught:
        await _foreign(world, f"{name}.get", {"instanceId": instance["id"]}, attempts=100)
    error = from_failure(caught.value.cause)
    assert error is not None
    assert error.code == "HTTP_503"
    assert len(world.upstream.seen) == 3
    first, second = world.upstream.gaps()
    assert first >= 0.05
    assert second >= 0.15


async def test_a_foreign_policy_can_be_stricter(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 503)]
    instance = await world.instance(
        definition_file(name, methods=[method("get", "GET", "/x", retryConfig=_TWO_RETRIES)])
    )
    with pytest.raises(WorkflowFailureError):
        await _foreign(world, f"{name}.get", {"instanceId": instance["id"]}, attempts=1)
    assert len(world.upstream.seen) == 1


async def test_a_foreign_callers_throttle_spends_its_attempt_but_none_of_the_definitions(
    world: World, name: str
) -> None:
    world.upstream.answers = [json_answer({}, 429, Retry_After="1"), json_answer({"ok": 1})]
    no_retries = {**_TWO_RETRIES, "maxRetries": 0}
    instance = await world.instance(definition_file(name, methods=[method("get", "GET", "/x", retryConfig=no_retries)]))
    answer = await _foreign(world, f"{name}.get", {"instanceId": instance["id"]}, attempts=5)
    assert answer["attempts"] == 1
    assert world.upstream.gaps()[0] >= 1


async def test_a_standalone_activity_gets_the_result(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    result = await world.temporal.execute_activity(
        f"{name}.get",
        {"instanceId": instance["id"], "params": {"id": 3}},
        id=str(uuid.uuid4()),
        task_queue="integrations",
        start_to_close_timeout=timedelta(seconds=20),
        result_type=MethodResult,
    )
    assert result.data == {"ok": True}


@pytest.mark.parametrize("activity", ["nodot", "other.get"])
async def test_an_activity_type_that_is_not_the_instances_fails_once(world: World, name: str, activity: str) -> None:
    instance = await world.instance(definition_file(name))
    with pytest.raises(ActivityFailureError) as caught:
        await world.temporal.execute_activity(
            activity,
            {"instanceId": instance["id"], "params": {"id": 3}},
            id=str(uuid.uuid4()),
            task_queue="integrations",
            start_to_close_timeout=timedelta(seconds=20),
        )
    error = from_failure(caught.value.cause)
    assert error is not None
    assert error.code == "VALIDATION_ERROR"
    assert world.upstream.seen == []


async def test_a_result_over_the_limit_fails_once_named_without_a_second_send(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({"text": "x" * (MAX_RESULT_BYTES + 1)})]
    instance = await world.instance(definition_file(name))
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "get", {"id": 1})
    assert caught.value.code == "RESPONSE_TOO_LARGE"
    assert len(world.upstream.seen) == 1


async def test_a_post_is_never_sent_twice(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 503)]
    instance = await world.instance(definition_file(name))
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "post", {"a": 1})
    assert caught.value.code == "HTTP_503"
    assert len(world.upstream.seen) == 1


async def test_a_post_that_was_throttled_is_sent_again(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 429, Retry_After="0"), json_answer({"id": 1})]
    instance = await world.instance(definition_file(name))
    result = await world.call(instance, "post", {"a": 1})
    assert (result.data, result.attempts) == ({"id": 1}, 1)


async def test_a_keyed_post_is_retried_with_the_same_key(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 503), json_answer({"id": 1})]
    keyed = method("post", "POST", "/x", idempotencyHeader="Idempotency-Key")
    instance = await world.instance(definition_file(name, methods=[keyed]))
    result = await world.call(instance, "post", {"a": 1})
    keys = {seen.headers["idempotency-key"] for seen in world.upstream.seen}
    assert result.attempts == 2
    assert len(keys) == 1
    assert uuid.UUID(keys.pop()).version == 5


async def test_a_post_whose_answer_is_lost_has_an_unknown_outcome(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({"id": 1})]
    slow = method("post", "POST", "/x", timeoutMs=300)
    instance = await world.instance(definition_file(name, methods=[slow]))

    async def hang(_: object) -> None:
        import asyncio

        await asyncio.Event().wait()

    world.upstream.handler = hang  # type: ignore[assignment]
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "post", {"a": 1})
    assert caught.value.code == "OUTCOME_UNKNOWN"
    assert len(world.upstream.seen) == 1


async def test_the_deadline_ends_a_wait_that_would_outlast_it(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 429, Retry_After="3600")]
    instance = await world.instance(definition_file(name))
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "get", {"id": 1}, deadline_ms=20_000)
    assert caught.value.code == "RATE_LIMITED"
    assert len(world.upstream.seen) == 1


@pytest.mark.parametrize(
    ("call", "path"),
    [
        ({}, "instanceId"),
        ({"instanceId": "x", "method": "get", "params": 3}, "params"),
        ({"instanceId": "x", "method": "get", "instance_id": "x"}, "instance_id"),
        ({"instanceId": "x"}, "method"),
        (None, None),
    ],
)
async def test_bad_input_fails_the_workflow_with_its_path_and_does_not_hang_it(
    world: World, call: JsonObject | None, path: str | None
) -> None:
    arguments = [] if call is None else [call]
    with pytest.raises(WorkflowFailureError) as caught:
        await world.temporal.execute_workflow(
            "ExecuteMethod", args=arguments, id=str(uuid.uuid4()), task_queue="integrations"
        )
    error = from_failure(caught.value.cause)
    assert error is not None
    assert error.path == path
    assert error.code in ("VALIDATION_ERROR", "INSTANCE_NOT_FOUND")


def _call(instance: JsonObject, name: str):  # type: ignore[no-untyped-def]
    from integration_service.contracts.calls import MethodCall

    return MethodCall(instance_id=instance["id"], method=name)
