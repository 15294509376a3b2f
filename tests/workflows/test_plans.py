"""A call that says how its method is scheduled is not looked up: what it says is checked before anything is sent."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationErrorCategory
from temporalio.worker import Worker

from integration_service.client import Integrations
from integration_service.contracts import known_methods
from integration_service.contracts.calls import MethodCall, MethodPlan, MethodResult
from integration_service.contracts.errors import ErrorCode, IntegrationError, from_failure
from integration_service.contracts.names import EXECUTE_METHOD
from integration_service.contracts.retry import RetryConfig
from integration_service.contracts.wire import JsonObject, parse
from integration_service.workflows.execute_method import ExecuteMethod
from tests.call_stand_in import CallStandIn
from tests.upstream import json_answer
from tests.world import World, definition_file, method

_RETRY = {"maxRetries": 2, "backoffMultiplier": 3, "initialDelayMs": 40, "maxDelayMs": 90}
_OTHER = {"maxRetries": 0, "backoffMultiplier": 1, "initialDelayMs": 10, "maxDelayMs": 10}
_SOUND = {"definition": "things", "definitionVersion": "1.0.0", "retry": _RETRY, "timeoutMs": 1_000}


def _definition(name: str, retry: JsonObject = _RETRY, **changes: Any) -> JsonObject:
    return definition_file(
        name, methods=[method("get", "GET", "/things/{id}", retryConfig=retry, timeoutMs=7_000)], **changes
    )


class _Run:
    """One call that ended."""

    def __init__(self, result: MethodResult, events: list[HistoryEvent]) -> None:
        self.result = result
        self.looked_up = sum(event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED for event in events)
        self.scheduled = [
            event.activity_task_scheduled_event_attributes
            for event in events
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        ]

        self.failed = [
            event.activity_task_failed_event_attributes.failure.application_failure_info
            for event in events
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED
        ]

    @property
    def policies(self) -> list[tuple[int, float, timedelta, timedelta]]:
        return [
            (policy.maximum_attempts, policy.backoff_coefficient, *map(_delta, (first, most)))
            for policy in (event.retry_policy for event in self.scheduled)
            for first, most in [(policy.initial_interval, policy.maximum_interval)]
        ]


def _delta(duration: Duration) -> timedelta:
    return duration.ToTimedelta()


async def _run(world: World, instance: JsonObject, plan: MethodPlan | str | None, **more: Any) -> _Run:
    call = MethodCall(**{"instance_id": instance["id"], "method": "get", "params": {"id": 1}, "plan": plan, **more})
    handle: WorkflowHandle[Any, Any] = await world.temporal.start_workflow(
        EXECUTE_METHOD, call.to_wire(), id=f"plan:{uuid.uuid4()}", task_queue="integrations", result_type=dict
    )
    result = parse(MethodResult, await handle.result())
    return _Run(result, list((await handle.fetch_history()).events))


async def _plan(world: World, instance: JsonObject) -> MethodPlan:
    plan = (await _run(world, instance, "wanted")).result.plan
    assert plan is not None
    return plan


async def test_a_result_brings_the_plan_that_was_wanted_and_the_next_call_is_not_looked_up(
    world: World, name: str
) -> None:
    instance = await world.instance(_definition(name))
    plan = await _plan(world, instance)
    assert plan.to_wire() == {
        "definition": name, "definitionVersion": "1.0.0", "retry": {**_RETRY, "backoffMultiplier": 3.0},
        "timeoutMs": 7_000,
    }  # fmt: skip
    asked, planned = await _run(world, instance, None), await _run(world, instance, plan)
    assert (asked.looked_up, planned.looked_up) == (1, 0)
    assert asked.result.plan is None
    assert planned.result.plan is None
    # Neither what the upstream's retries are nor how long it has depends on who looked it up.
    assert asked.policies == planned.policies == [(3, 3.0, timedelta(milliseconds=40), timedelta(milliseconds=90))]
    assert asked.scheduled[0].start_to_close_timeout == planned.scheduled[0].start_to_close_timeout
    assert [row["status"] for row in await world.audit(instance)] == ["SUCCEEDED"] * 3


async def test_a_plan_of_a_version_that_the_instance_left_is_found_out_before_anything_is_sent(
    world: World, name: str
) -> None:
    instance = await world.instance(_definition(name))
    plan = await _plan(world, instance)
    await world.publish(_definition(name, _OTHER, version="2.0.0"))
    await world.connection(instance).upgrade("2.0.0")
    sent = len(world.upstream.seen)
    late = await _run(world, instance, plan)
    assert len(world.upstream.seen) == sent + 1
    assert late.looked_up == 1
    # No news to an operator: after an upgrade there is one of them for each client and method.
    told = [(failed.type, failed.category) for failed in late.failed]
    assert told == [(ErrorCode.VERSION_CONFLICT, ApplicationErrorCategory.BENIGN)]
    assert [policy[0] for policy in late.policies] == [3, 1]
    assert late.result.plan is not None
    assert late.result.definition_version == late.result.plan.definition_version == "2.0.0"
    assert [row["definition_version"] for row in await world.audit(instance)] == ["1.0.0", "2.0.0"]
    again = await _run(world, instance, late.result.plan)
    assert (again.looked_up, [policy[0] for policy in again.policies]) == (0, [1])


@pytest.mark.parametrize(
    "false",
    [
        {"retry": RetryConfig(max_retries=900, backoff_multiplier=1, initial_delay_ms=0, max_delay_ms=0)},
        {"timeout_ms": 1},
        {"definition_version": "9.9.9"},
        {"definition": "another"},
    ],
    ids=lambda false: next(iter(false)),
)
async def test_a_plan_that_nobody_gave_is_not_run(world: World, name: str, false: JsonObject) -> None:
    instance = await world.instance(_definition(name))
    plan = (await _plan(world, instance)).model_copy(update=false)
    world.upstream.answers = [json_answer({}, 503), json_answer({"id": 1})]
    forged = await _run(world, instance, plan)
    assert (forged.looked_up, forged.result.attempts) == (1, 2)
    assert forged.policies[-1][0] == 3
    assert len(world.upstream.seen) == 3


async def test_an_instance_that_is_named_is_looked_up(world: World, name: str) -> None:
    instance = await world.instance(_definition(name))
    named = await _run(world, instance, await _plan(world, instance), instance_id=instance["name"])
    assert named.looked_up == 1


async def test_a_method_whose_answers_are_cached_has_no_plan(world: World, name: str) -> None:
    """Its answer may be found while it is looked up, and then needs no activity."""
    world.upstream.answers = [json_answer({"id": 1})]
    cached = method("get", "GET", "/things/{id}", cache={"ttlMs": 60_000, "varyByInstance": True})
    instance = await world.instance(definition_file(name, methods=[cached]))
    assert (await _run(world, instance, "wanted")).result.plan is None
    found = await _run(world, instance, "wanted")
    assert (found.result.cached, found.result.plan, len(found.scheduled)) == (True, None, 0)


async def test_what_is_wrong_with_a_planned_call_is_told_as_ever(world: World, name: str) -> None:
    instance = await world.instance(_definition(name))
    plan = await _plan(world, instance)

    async def refused() -> str:
        with pytest.raises(IntegrationError) as caught:
            await world.call(instance, "get", {"id": 1}, plan=plan)
        return caught.value.code

    await world.connection(instance).disconnect(revoke=False)
    assert await refused() == ErrorCode.INSTANCE_NOT_CONNECTED
    await world.connection(instance).delete()
    assert await refused() == ErrorCode.INSTANCE_NOT_FOUND


async def test_a_refusal_is_the_same_and_leaves_the_same_rows_with_and_without_a_plan(world: World, name: str) -> None:
    instance = await world.instance(_definition(name))
    plan = await _plan(world, instance)

    async def refused(plan: MethodPlan | None, **more: Any) -> tuple[JsonObject, int]:
        before = len(await world.audit(instance))
        with pytest.raises(WorkflowFailureError) as caught:
            await _run(world, instance, plan, **more)
        error = from_failure(caught.value.cause)
        assert error is not None
        rows = len(await world.audit(instance)) - before
        return {"code": error.code, "message": error.message, **error.details}, rows

    async def alike(**more: Any) -> str:
        told = await refused(plan, **more)
        assert told == await refused(None, **more)
        return str(told[0]["code"])

    assert await alike(method="nope") == ErrorCode.METHOD_NOT_FOUND
    assert await alike(page="2") == ErrorCode.VALIDATION_ERROR
    await world.connection(instance).configure({"url": 5})
    assert await alike() == ErrorCode.CONFIG_ERROR
    await world.connection(instance).disconnect(revoke=False)
    assert await alike(on_auth_error="wait") == ErrorCode.INSTANCE_NOT_CONNECTED


@pytest.mark.parametrize(
    ("plan", "path"),
    [
        (5, "plan"),
        ("some", "plan"),
        ({}, "plan.definition"),
        ({**_SOUND, "retry": {**_RETRY, "maxRetries": 5_000}}, "plan.retry.maxRetries"),
        ({**_SOUND, "definition": "a.b"}, "plan.definition"),
        ({**_SOUND, "definitionVersion": "9" * 255}, "plan.definitionVersion"),
    ],
    ids=["number", "text", "empty", "retry", "definition", "version"],
)
def test_what_is_no_plan_is_refused_by_the_names_on_the_wire(plan: Any, path: str) -> None:
    with pytest.raises(IntegrationError) as caught:
        parse(MethodCall, {"instanceId": "i", "plan": plan})
    assert caught.value.path == path


def test_what_the_client_knows_has_a_bound_and_what_it_hears_again_forgets_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_methods, "_KEPT", 3)
    known, plan = known_methods.KnownMethods(), parse(MethodPlan, _SOUND)
    told = MethodResult(
        data=None,
        status_code=200,
        attempts=1,
        duration_ms=1,
        definition="things",
        definition_version="1.0.0",
        plan=plan,
    )
    calls = [MethodCall(instance_id=str(uuid.uuid4()), method=f"get_{number}") for number in range(4)]
    for call in [*calls[:3], calls[0]]:
        known.learn(call, told)
    assert [known.plan(call) for call in calls] == [plan] * 3 + [None]
    known.learn(calls[3], told)
    assert [known.plan(call) for call in calls] == [None] * 3 + [plan]


async def test_two_definitions_of_one_name_and_version_do_not_make_calls_take_the_detour(
    world: World, name: str
) -> None:
    """An older instance of a scope has the global one, a newer one the scope's own."""
    await world.publish(_definition(name))
    older = await world.connect(name, scope=name)
    await world.publish(_definition(name, _OTHER, scope=name))
    newer = await world.connect(name, scope=name)
    integrations, sent = Integrations(world.temporal), []
    for instance in (older, newer) * 4:
        workflow_id = f"{name}-{uuid.uuid4()}"
        call = MethodCall(instance_id=instance["id"], scope=name, method="get", params={"id": 1})
        await integrations.call(call, workflow_id=workflow_id)
        events = (await world.temporal.get_workflow_handle(workflow_id).fetch_history()).events
        sent.append(sum(event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED for event in events))
    assert sent[4:] == [1] * 4


async def test_who_asks_the_client_for_a_plan_gets_it(world: World, name: str) -> None:
    instance = await world.instance(_definition(name))
    result = await world.call(instance, "get", {"id": 1}, plan="wanted")
    assert result.plan is not None
    assert (await world.call(instance, "get", {"id": 1}, plan=result.plan)).plan is None


async def test_the_client_learns_and_its_callers_see_nothing_of_it(world: World, name: str) -> None:
    """A plan is of a version: the second instance's first call has one already, once its version is known."""
    integrations, first = Integrations(world.temporal), await world.instance(_definition(name))
    second = await world.connect(name)

    async def looked_up(instance: JsonObject) -> int:
        workflow_id = f"{name}-{uuid.uuid4()}"
        call = MethodCall(instance_id=instance["id"], method="get", params={"id": 1})
        assert (await integrations.call(call, workflow_id=workflow_id)).plan is None
        handle = world.temporal.get_workflow_handle(workflow_id)
        return sum(
            event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED for event in (await handle.fetch_history()).events
        )

    assert [await looked_up(instance) for instance in (first, first, second, second)] == [1, 0, 1, 0]
    await world.publish(_definition(name, _OTHER, version="2.0.0"))
    await world.connection(first).upgrade("2.0.0")
    assert [await looked_up(first), await looked_up(first)] == [1, 0]


async def test_an_outage_is_waited_out_with_the_plan(temporal: Client) -> None:
    """Each run of the activity checks it again, as long as nothing was sent."""
    stand_in = CallStandIn()
    outage = IntegrationError(ErrorCode.UNAVAILABLE, "the database does not answer", details={"retryAfterMs": 1})
    stand_in.trouble = {"run": [outage, outage]}
    plan = MethodPlan(
        definition="things", definition_version="1.0.0", retry=parse(RetryConfig, _RETRY), timeout_ms=1_000
    )
    queue = f"plans-{uuid.uuid4()}"
    async with Worker(temporal, task_queue=queue, workflows=[ExecuteMethod], activities=stand_in.activities):
        call = MethodCall(instance_id=stand_in.instance_id, method="get", plan=plan)
        await Integrations(temporal, task_queue=queue).call(call)
    assert (stand_in.asked["resolve"], stand_in.asked["run"]) == (0, 3)
    assert [continuation.plan for continuation in stand_in.continuations] == [plan] * 3
