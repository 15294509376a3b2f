"""What a workflow says of itself to whoever opens its page, also when somebody else's program started it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowFailureError, WorkflowHandle

from integration_service.contracts.calls import MethodCall
from tests.upstream import json_answer
from tests.waiting import eventually
from tests.world import World, definition_file


async def test_a_call_that_others_started_tells_why_it_waits_and_how_it_ended(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 429, Retry_After="3"), json_answer({"id": 1})]
    instance = await world.instance(definition_file(name))
    handle = await world.temporal.start_workflow(
        "ExecuteMethod",
        {"instanceId": instance["name"], "method": "get", "params": {"id": "planted"}, "correlationId": "c-17"},
        id=str(uuid.uuid4()),
        task_queue="integrations",
    )

    async def waits() -> tuple[str, dict[str, Any]] | None:
        details, status = (await _metadata(handle)).current_details, await handle.query("status")
        return (details, status) if "Waits until" in details and status["state"] == "WAITING" else None

    page, asked = await eventually(waits)
    assert "The rate limit is used up. (`RATE_LIMITED`)" in page
    assert f"Method: `{name}.get`, definition version `1.0.0`" in page
    assert f"Instance: `{instance['name']}`, `{instance['id']}`" in page
    assert "Correlation id: `c-17`" in page
    assert (asked["code"], asked["method"], asked["definition"]) == ("RATE_LIMITED", "get", name)
    assert asked["why"] in page
    assert asked["until"][:10] in page
    await handle.result()
    assert (await handle.query("status"))["state"] == "DONE"
    done = (await _metadata(handle)).current_details
    assert "## Done\n\nThe upstream answered: HTTP 200, tries: 1." in done
    assert "planted" not in page + done


async def test_a_call_that_failed_says_what_to_do(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({"planted": 1}, 404)]
    instance = await world.instance(definition_file(name))
    handle = await world.temporal.start_workflow(
        "ExecuteMethod",
        {"instanceId": instance["id"], "method": "get", "params": {"id": "planted"}},
        id=str(uuid.uuid4()),
        task_queue="integrations",
    )
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    page = (await _metadata(handle)).current_details
    assert "## Failed: `HTTP_404`\n\n**What is wrong:** The upstream answered HTTP 404." in page
    assert "**What to do:** Look at the upstream." in page
    assert "planted" not in page


async def test_a_call_that_was_cancelled_says_so(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 429, Retry_After="600")]
    instance = await world.instance(definition_file(name))
    handle = await world.integrations.start_call(MethodCall(instance_id=instance["id"], method="get", params={"id": 1}))

    async def waits() -> bool:
        return (await handle.query("status"))["state"] == "WAITING"

    await eventually(waits)
    before = len((await handle.fetch_history()).events)
    assert (await handle.query("status"))["maxTries"] == 4
    assert len((await handle.fetch_history()).events) == before
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert (await _metadata(handle)).current_details.startswith("## Cancelled")


async def test_everything_that_can_be_sent_or_asked_is_described(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name))
    handle = world.temporal.get_workflow_handle(f"connection:{instance['id']}")
    definition = (await _metadata(handle)).definition
    for group in (definition.query_definitions, definition.signal_definitions, definition.update_definitions):
        own = [one for one in group if not one.name.startswith("__")]
        assert own
        assert [one.name for one in own if not one.description] == []


async def _metadata(handle: WorkflowHandle[Any, Any]) -> WorkflowMetadata:
    return await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
