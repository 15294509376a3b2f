"""What a definition may say of a method, end to end: transforms, pages, cache, large results, errors' words."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import JsonObject
from tests.upstream import json_answer
from tests.waiting import eventually
from tests.world import World, definition_file, method

SECRET = "planted-key-5d1c0f"


def one_method(name: str, verb: str = "GET", path: str = "/things/{id}", **changes: Any) -> JsonObject:
    definition = {key: changes.pop(key) for key in ("authType", "errorMessage", "defaultConfig") if key in changes}
    return definition_file(name, methods=[method("do", verb, path, **changes)], **definition)


async def test_both_transforms(world: World, name: str) -> None:
    instance = await world.instance(
        one_method(
            name,
            "POST",
            "/search/{kind}",
            requestTransform='{"kind":params.what, "filter": {"q": $uppercase(params.text), "x": $exists(config.url)}}',
            responseTransform='{"titles": hits.title, "status": $status, "by": $headers."x-served-by"}',
            resultSchema={"type": "object", "required": ["titles"]},
        )
    )
    world.upstream.answers = [json_answer({"hits": [{"title": "a"}, {"title": "b"}]}, x_served_by="m1")]
    result = await world.call(instance, "do", {"what": "books", "text": "cats"})
    assert result.data == {"titles": ["a", "b"], "status": 200, "by": "m1"}
    [seen] = world.upstream.seen
    assert (seen.path, json.loads(seen.body)) == ("/search/books", {"filter": {"q": "CATS", "x": True}})


async def test_a_request_transform_that_gives_no_object(world: World, name: str) -> None:
    instance = await world.instance(one_method(name, requestTransform="params.id"))
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "do", {"id": 1})
    assert (failed.value.code, failed.value.path) == ("TRANSFORM_ERROR", "methods[0].requestTransform")
    assert world.upstream.seen == []


async def test_what_an_upstream_echoes_of_a_credential_comes_through_no_transform(world: World, name: str) -> None:
    instance = await world.instance(
        one_method(
            name,
            authType="api_key",
            responseTransform='{"half": $substring(key, 0, 8), "whole": key, "head": $headers."x-echo"}',
            errorMessage='"sent " & key',
        )
    )
    await world.submit(
        instance, {"type": "api_key", "apiKey": {"key": SECRET, "headerOrParam": "X-Key", "inHeader": True}}
    )
    world.upstream.answers = [json_answer({"key": SECRET}, x_echo=SECRET), json_answer({"key": SECRET}, 418)]
    result = await world.call(instance, "do", {"id": 1})
    assert result.data == {"half": "[REDACTE", "whole": "[REDACTED]", "head": "[REDACTED]"}
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "do", {"id": 1})
    assert failed.value.message == "the upstream answered 418: sent [REDACTED]"


async def test_an_upstreams_own_words(world: World, name: str) -> None:
    instance = await world.instance(one_method(name, errorMessage="errors[0].text"))
    world.upstream.answers = [json_answer({"errors": [{"text": "ü" * 2000}]}, 422), json_answer({"other": 1}, 422)]
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "do", {"id": 1})
    assert failed.value.message == "the upstream answered 422: " + "ü" * 512
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "do", {"id": 1})
    assert failed.value.message == "the upstream answered 422"


class Shelf:
    """Ten books, three to a page, in every manner of paging."""

    async def __call__(self, request: Request) -> Response:
        query = dict(request.query_params)
        start = int(query.get("start") or query.get("after") or 3 * (int(query.get("page", 1)) - 1))
        books = [{"n": n} for n in range(10)][start : start + 3]
        last = start + 3 >= 10
        headers = {} if last else {"link": f'<{request.url.path}?start={start + 3}>; rel="next"'}
        return JSONResponse({"books": books, "next": None if last else str(start + 3)}, headers=headers)


PAGINATION = {
    "link": {"kind": "link"},
    "link in the body": {"kind": "link", "next": 'next ? "?start=" & next'},
    "cursor": {"kind": "cursor", "param": "after", "next": "next"},
    "offset": {"kind": "offset", "param": "start", "limit": 3},
    "page": {"kind": "page", "param": "page", "limit": 3},
}


@pytest.mark.parametrize("kind", PAGINATION)
async def test_pages_are_put_together_and_go_on_where_they_ended(world: World, name: str, kind: str) -> None:
    rules = {"items": "$", "maxPages": 3, **PAGINATION[kind]}
    instance = await world.instance(
        one_method(name, path="/books", pagination=rules, responseTransform="[books.n]", resultSchema={"type": "array"})
    )
    world.upstream.handler = Shelf()
    result = await world.call(instance, "do")
    assert (result.data, result.attempts) == (list(range(9)), 1)
    assert isinstance(result.next_page, str)
    rest = await world.call(instance, "do", page=result.next_page)
    assert (rest.data, rest.next_page) == ([9], None)
    assert len(world.upstream.seen) == 4
    with pytest.raises(IntegrationError) as refused:
        await world.call(instance, "do", page="2")
    assert (refused.value.code, refused.value.path) == ("VALIDATION_ERROR", "page")


async def test_a_retry_starts_at_page_one(world: World, name: str) -> None:
    instance = await world.instance(
        one_method(
            name,
            path="/books",
            pagination={"kind": "cursor", "param": "after", "next": "next", "items": "books.n", "maxPages": 9},
        )
    )
    shelf, failed = Shelf(), []

    async def once_broken(request: Request) -> Response:
        if request.query_params.get("after") == "6" and not failed:
            failed.append(1)
            return Response(status_code=503)
        return await shelf(request)

    world.upstream.handler = once_broken
    result = await world.call(instance, "do")
    assert (result.data, result.attempts, len(world.upstream.seen)) == (list(range(10)), 2, 3 + 4)


async def test_a_page_link_never_takes_the_credential_elsewhere(world: World, name: str) -> None:
    instance = await world.instance(
        one_method(name, path="/books", pagination={"kind": "link", "items": "$", "maxPages": 3})
    )
    world.upstream.answers = [json_answer([1], link='<http://127.0.0.2:1/x>; rel="next"')]
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "do")
    assert failed.value.code == "MALFORMED_RESPONSE"


async def test_a_cached_answer(world: World, name: str) -> None:
    instance = await world.instance(one_method(name, cache={"ttlMs": 60_000}))
    first = await world.call(instance, "do", {"id": 1})
    again = await world.call(instance, "do", {"id": 1})
    assert (first.cached, again.cached, again.data, again.attempts) == (False, True, first.data, 0)
    assert again.cache_age_ms is not None
    assert len(world.upstream.seen) == 1
    await world.call(instance, "do", {"id": 2})
    assert not (await world.call(instance, "do", {"id": 1}, cache="bypass")).cached
    assert not (await world.call(instance, "do", {"id": 1}, cache="refresh")).cached
    assert len(world.upstream.seen) == 4
    await world.connection(instance).configure({"url": world.upstream.url, "more": 1})
    assert not (await world.call(instance, "do", {"id": 1})).cached
    assert [row["status"] for row in await world.audit(instance)] == ["SUCCEEDED"] * 6


async def test_an_error_is_never_cached(world: World, name: str) -> None:
    instance = await world.instance(one_method(name, cache={"ttlMs": 60_000}))
    world.upstream.answers = [Response(status_code=404), json_answer({"ok": 1})]
    with pytest.raises(IntegrationError):
        await world.call(instance, "do", {"id": 1})
    assert (await world.call(instance, "do", {"id": 1})).data == {"ok": 1}


async def test_an_answer_runs_out(world: World, name: str) -> None:
    instance = await world.instance(one_method(name, cache={"ttlMs": 1}))
    await world.call(instance, "do", {"id": 1})
    assert not (await world.call(instance, "do", {"id": 1})).cached


async def test_concurrent_misses_are_one_request(world: World, name: str) -> None:
    instance = await world.instance(one_method(name, cache={"ttlMs": 60_000}))
    results = await asyncio.gather(*(world.call(instance, "do", {"id": 1}) for _ in range(30)))
    assert len(world.upstream.seen) == 1
    assert sum(not result.cached for result in results) == 1


@pytest.mark.parametrize("key", ["cache", "pagination"])
async def test_only_what_is_safe_twice_is_cached_or_paged(world: World, name: str, key: str) -> None:
    rules = {"cache": {"ttlMs": 1000}, "pagination": {"kind": "page", "param": "p", "items": "$", "maxPages": 2}}
    with pytest.raises(IntegrationError) as refused:
        await world.publish(one_method(name, "POST", "/x", **{key: rules[key]}))
    assert refused.value.path == f"methods[0].{key}"
    await world.publish(one_method(name, "POST", "/x", idempotent=True, **{key: rules[key]}))


async def test_a_large_result_by_reference(world: World, name: str) -> None:
    instance = await world.instance(one_method(name))
    body = {"text": "ä" * 700_000}
    world.upstream.answers = [json_answer(body)]
    with pytest.raises(IntegrationError) as failed:
        await world.call(instance, "do", {"id": 1})
    assert failed.value.code == "RESPONSE_TOO_LARGE"
    result = await world.call(instance, "do", {"id": 1}, large_result="reference")
    assert (result.data, result.attempts) == (None, 1)
    assert result.result_ref is not None
    token = world.stack.environment["INTEGRATIONS_GATEWAY_TOKENS"]
    async with httpx2.AsyncClient() as http:
        assert (await http.get(result.result_ref.url)).status_code == 401
        answer = await http.get(result.result_ref.url, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json(), len(answer.content)) == (200, body, result.result_ref.bytes)


async def test_a_breaker_opens_is_told_and_closes(world: World, name: str) -> None:
    instance = await world.instance(
        one_method(name, retryConfig={"maxRetries": 0, "backoffMultiplier": 1, "initialDelayMs": 1, "maxDelayMs": 1})
    )
    world.upstream.answers = [Response(status_code=500)]
    outcomes = await asyncio.gather(
        *(world.call(instance, "do", {"id": n}, deadline_ms=20_000) for n in range(25)), return_exceptions=True
    )
    codes = {error.code for error in outcomes if isinstance(error, IntegrationError)}
    assert codes <= {"HTTP_500", "CIRCUIT_OPEN"}
    sends = len(world.upstream.seen)
    with pytest.raises(IntegrationError) as refused:
        await world.call(instance, "do", {"id": 1}, deadline_ms=20_000)
    assert refused.value.code == "CIRCUIT_OPEN"
    assert refused.value.details["failures"] >= 20
    assert len(world.upstream.seen) == sends
    shown = await eventually(lambda: _with_error(world, instance))
    assert (shown["status"], shown["error"]["code"]) == ("CONNECTED", "CIRCUIT_OPEN")
    [evidence] = shown["error"]["details"]["breakers"]
    assert evidence["host"] == world.upstream.url.removeprefix("http://")
    # A probe is due: the upstream is well, so the breaker closes, and the call that waited goes through.
    world.upstream.answers = [json_answer({"ok": 1})]
    await world.database.one(
        """UPDATE integrations.breakers SET opened_until = now()
            WHERE instance_id = %(id)s AND opened_until IS NOT NULL""",
        {"id": instance["id"]},
    )
    assert (await world.call(instance, "do", {"id": 1})).data == {"ok": 1}
    await eventually(lambda: _without_error(world, instance))


async def _with_error(world: World, instance: JsonObject) -> JsonObject | None:
    status = await world.connection(instance).status()
    return status if "error" in status else None


async def _without_error(world: World, instance: JsonObject) -> bool:
    return await _with_error(world, instance) is None
