"""A request that must not be sent twice, and the moments at which a worker may die."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from starlette.responses import JSONResponse
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from integration_service.activities.parts import Parts
from integration_service.contracts.calls import MethodResult
from integration_service.contracts.wire import JsonObject
from tests.world import World, definition_file, method


async def attempt(parts: Parts, instance: JsonObject, method_name: str, *, number: int) -> MethodResult:
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(
        environment.info,
        activity_type=f"{instance['definitionName']}.{method_name}",
        workflow_id=f"w-{instance['id']}",
        attempt=number,
        started_time=datetime.now(UTC),
        start_to_close_timeout=timedelta(minutes=1),
    )
    call = environment.payload_converter.to_payload({"instanceId": instance["id"], "params": {}})
    result: MethodResult = await environment.run(parts.methods.run_method, [RawValue(call)])
    return result


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_that_was_recorded_but_never_handed_over_is_not_asked_for_again(
    world: World, parts: Parts, name: str, status: int
) -> None:
    """The worker dies between the commit and Temporal: the next attempt must not send."""
    world.upstream.answers = [JSONResponse({"made": True}, status_code=status)]
    instance = await world.instance(definition_file(name, methods=[method("once", "POST", "/effects")]))
    instance["definitionName"] = name
    if status == 200:
        assert (await attempt(parts, instance, "once", number=1)).data == {"made": True}
    else:
        with pytest.raises(ApplicationError) as failed:
            await attempt(parts, instance, "once", number=1)
        assert failed.value.type == "HTTP_500"
    with pytest.raises(ApplicationError) as unknown:
        await attempt(parts, instance, "once", number=2)
    assert unknown.value.type == "OUTCOME_UNKNOWN"
    assert len(world.upstream.seen) == 1
