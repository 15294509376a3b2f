"""`ExecuteMethod` end to end: another program starts it by name, a real API answers."""

from __future__ import annotations

import pytest

from integration_service.contracts.errors import IntegrationError
from tests.upstream import json_answer
from tests.world import World, definition_file, method


async def test_a_call_runs_and_leaves_one_audit_row(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({"id": 7})]
    instance = await world.instance(definition_file(name))
    result = await world.call(instance, "get", {"id": "a/b", "q": [1, True]})
    assert (result.data, result.status_code, result.attempts) == ({"id": 7}, 200, 1)
    assert world.upstream.seen[0].path == "/things/a%2Fb"
    assert world.upstream.seen[0].query == "q=1&q=true"
    (row,) = await world.audit(instance)
    assert (row["status"], row["http_status"], row["attempt"]) == ("SUCCEEDED", 200, 1)


async def test_two_503_then_200_takes_three_attempts_with_the_configured_delays(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 503), json_answer({}, 503), json_answer({"id": 1})]
    instance = await world.instance(definition_file(name))
    result = await world.call(instance, "get", {"id": 1})
    assert result.attempts == 3
    first, second = world.upstream.gaps()
    assert first >= 0.1
    assert second >= 0.2
    assert [row["code"] for row in await world.audit(instance)] == ["HTTP_503", "HTTP_503", None]


async def test_a_404_is_not_retried(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 404)]
    instance = await world.instance(definition_file(name))
    with pytest.raises(IntegrationError, match="404") as caught:
        await world.call(instance, "get", {"id": 1})
    assert caught.value.code == "HTTP_404"
    assert len(world.upstream.seen) == 1


async def test_a_throttle_waits_as_asked_and_spends_no_retry(world: World, name: str) -> None:
    world.upstream.answers = [json_answer({}, 429, Retry_After="2"), json_answer({"id": 1})]
    no_retries = {"maxRetries": 0, "backoffMultiplier": 1, "initialDelayMs": 10, "maxDelayMs": 10}
    instance = await world.instance(
        definition_file(name, methods=[method("get", "GET", "/things/{id}", retryConfig=no_retries)])
    )
    result = await world.call(instance, "get", {"id": 1})
    assert result.attempts == 1
    assert world.upstream.gaps()[0] >= 2


async def test_bad_params_fail_before_any_request_leaves(world: World, name: str) -> None:
    schema = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    instance = await world.instance(
        definition_file(name, methods=[method("get", "GET", "/things/{id}", paramSchema=schema)])
    )
    with pytest.raises(IntegrationError) as caught:
        await world.call(instance, "get", {"id": "seven"})
    assert (caught.value.code, caught.value.path) == ("VALIDATION_ERROR", "params.id")
    assert world.upstream.seen == []
