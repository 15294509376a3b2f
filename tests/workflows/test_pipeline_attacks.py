"""What an upstream, a definition's author or a caller could do to the pipeline, and cannot any more."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from temporalio.client import WorkflowFailureError

from integration_service.contracts.errors import IntegrationError, from_failure
from integration_service.contracts.names import EXECUTE_METHOD
from integration_service.contracts.wire import JsonObject
from tests.upstream import json_answer
from tests.workflows.test_method_features import one_method
from tests.world import World, definition_file

FOREVER = "($f := function($x){$f($x + 1)}; $f(0))"
KEY = "SEKRET-0123456789abcdefghijklmnopqrstuv"


async def test_who_evaluates_what_does_not_end_holds_up_nobody_else(world: World, name: str) -> None:
    hostile = await world.instance(one_method(f"{name}-h", responseTransform=FOREVER))
    other = await world.instance(one_method(f"{name}-v", "POST", "/pay", responseTransform='{"a": ok}'))
    looping = [asyncio.create_task(world.call(hostile, "do", {"id": 1}, deadline_ms=8_000)) for _ in range(20)]
    while not any(seen.method == "GET" for seen in world.upstream.seen):
        await asyncio.sleep(0.01)
    assert (await asyncio.wait_for(world.call(other, "do"), 30)).data == {"a": True}
    assert sum(seen.method == "POST" for seen in world.upstream.seen) == 1
    failures = await asyncio.gather(*looping, return_exceptions=True)
    assert {getattr(failure, "code", failure) for failure in failures} <= {"TRANSFORM_ERROR", "UNAVAILABLE", "TIMEOUT"}


async def test_a_cursor_without_measure_repeats_nothing(world: World, name: str) -> None:
    rules = {"kind": "cursor", "param": "c", "next": "next", "items": "x", "maxPages": 1}
    instance = await world.instance(one_method(name, path="/b", pagination=rules))
    world.upstream.answers = [json_answer({"x": [1], "next": "c" * 1_500_000})]
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "do")
    assert failed.value.code == "MALFORMED_RESPONSE"
    assert len(world.upstream.seen) == 1


async def test_a_shared_answers_next_page_is_everybodys_who_shares_it(world: World, name: str) -> None:
    rules = {"kind": "cursor", "param": "c", "next": "next", "items": "x", "maxPages": 1}
    cache = {"ttlMs": 60_000, "varyByInstance": False}
    first = await world.instance(one_method(name, path="/b", cache=cache, pagination=rules))
    second = await world.connect(name)
    world.upstream.answers = [json_answer({"x": [1], "next": "n2"}), json_answer({"x": [2]})]
    await world.call(first, "do")
    shared = await world.call(second, "do")
    assert shared.cached
    assert (await world.call(second, "do", page=shared.next_page)).data == [2]


class Window:
    """Two requests in two seconds, told by headers, a page each."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._end, self._left = 0.0, 2

    async def __call__(self, request: Request) -> Response:
        now = time.monotonic()
        if now > self._end:
            self._end, self._left = now + 2, 2
        reset = str(max(1, int(self._end - now + 1)))
        if self._left <= 0:
            return JSONResponse({}, 429, headers={"retry-after": reset})
        self._left -= 1
        self.asked.append(request.query_params["p"])
        return JSONResponse({"x": [1]}, headers={"x-ratelimit-remaining": str(self._left), "x-ratelimit-reset": reset})


async def test_pages_wait_where_they_are_for_an_upstream_that_is_slow_to_give(world: World, name: str) -> None:
    rules = {"kind": "page", "param": "p", "limit": 1, "items": "x", "maxPages": 5}
    instance = await world.instance(one_method(name, path="/b", pagination=rules))
    window = world.upstream.handler = Window()
    result = await world.call(instance, "do", deadline_ms=60_000)
    assert (result.data, result.attempts) == ([1] * 5, 1)
    assert window.asked == ["1", "2", "3", "4", "5"]


async def test_pages_are_bounded_by_what_is_made_of_them(world: World, name: str) -> None:
    rules = {"kind": "page", "param": "p", "items": "x", "maxPages": 30}
    padded = '{"x": [$pad("", 1000000, "a")]}'
    instance = await world.instance(one_method(name, path="/b", responseTransform=padded, pagination=rules))
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "do", large_result="reference")
    assert failed.value.code == "RESPONSE_TOO_LARGE"
    assert len(world.upstream.seen) < 15


def graphql(name: str, document: str, **changes: Any) -> JsonObject:
    [method] = one_method(name)["methods"]
    return definition_file(name, type="graphql", methods=[{**method, "request": {"document": document}}], **changes)


async def test_what_is_cut_short_holds_no_piece_of_a_credential(world: World, name: str) -> None:
    instance = await world.instance(graphql(name, "mutation { pay }", authType="api_key"))
    credential = {"key": KEY, "headerOrParam": "X-Key", "inHeader": True}
    await world.submit(instance, {"type": "api_key", "apiKey": credential})
    world.upstream.answers = [json_answer({"errors": [{"message": "x" * 220 + KEY}], "data": None})]
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "do")
    assert failed.value.code == "GRAPHQL_ERROR"
    assert failed.value.details["errors"][0]["message"] == "x" * 220 + "[REDACTED]"
    assert "SEKRET" not in repr(failed.value.details)


@pytest.mark.parametrize("code", ["THROTTLED", "UNAUTHENTICATED"])
async def test_a_mutation_that_may_have_acted_is_not_sent_again(world: World, name: str, code: str) -> None:
    instance = await world.instance(graphql(name, "mutation { pay audit }"))
    world.upstream.answers = [
        json_answer({"errors": [{"message": "no", "path": ["audit"], "extensions": {"code": code}}], "data": None})
    ]
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "do")
    assert (failed.value.code, len(world.upstream.seen)) == ("GRAPHQL_ERROR", 1)


@pytest.mark.parametrize(
    "more", [{f"unknown_{n}": 1 for n in range(30_000)}, {"k" * 1_200_000: 1}], ids=["many", "long"]
)
async def test_a_large_bad_input_fails_and_does_not_hang(world: World, name: str, more: JsonObject) -> None:
    handle = await world.temporal.start_workflow(
        EXECUTE_METHOD,
        {"instanceId": "x", "method": "do", **more},
        id=name,
        task_queue=world.stack.ready.task_queue,
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(handle.result(), 30)
    error = from_failure(failed.value.cause)
    assert error is not None
    assert error.code == "VALIDATION_ERROR"


async def test_a_link_that_echoes_the_key_is_asked_for_with_the_key_once(world: World, name: str) -> None:
    rules = {"kind": "link", "items": "x", "next": "next", "maxPages": 2}
    instance = await world.instance(one_method(name, path="/b", authType="api_key", pagination=rules))
    await world.submit(instance, {"type": "api_key", "apiKey": {"key": KEY, "headerOrParam": "key", "inHeader": False}})
    world.upstream.answers = [json_answer({"x": [1], "next": f"?key={KEY}&page=2"}), json_answer({"x": [2]})]
    assert (await world.call(instance, "do")).data == [1, 2]
    assert [seen.query for seen in world.upstream.seen] == [f"key={KEY}", f"page=2&key={KEY}"]
