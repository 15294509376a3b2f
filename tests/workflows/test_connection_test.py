"""`connectionTest`: a refused token is renewed once for whoever asks, and slow upstreams delay no refresh."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from datetime import timedelta

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from temporalio.service import RPCError

from integration_service.contracts.connections import TEST_CONNECTION, ConnectionTest
from integration_service.contracts.names import TASK_QUEUE, connection_tests_queue, connection_workflow_id
from integration_service.contracts.wire import JsonObject
from integration_service.storage.vault.keyring import Keyring
from tests.provider import Provider
from tests.waiting import eventually
from tests.world import World, definition_file, method


class Guarded(Provider):
    """A provider whose API takes the access tokens in `good` only."""

    good: frozenset[str] = frozenset()
    calls = 0

    async def serve(self, request: Request) -> Response:
        if request.url.path == "/things":
            self.calls += 1
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            return JSONResponse({}, 200 if token in self.good else 401)
        return await super().serve(request)

    def file(self, **oauth2: object) -> JsonObject:
        return {**super().file(**oauth2), "connectionTest": "get"}


@pytest.fixture
def provider(world: World, keyring: Keyring, name: str) -> Guarded:
    return Guarded(world, keyring, name)


async def test_a_refused_token_is_renewed_for_whoever_asks(world: World, provider: Guarded) -> None:
    provider.good = frozenset({"planted-access-0"})
    instance = await provider.connected()
    assert instance["status"] == "CONNECTED"
    provider.good = frozenset({"planted-access-1"})
    status = await world.connection(instance).update("test")
    assert (status["status"], provider.tokens) == ("CONNECTED", 1)


async def test_a_connection_whose_every_token_is_refused_rests(world: World, provider: Guarded) -> None:
    provider.good = frozenset({"planted-access-0"})
    instance = await provider.connected()
    provider.good = frozenset()
    status = await world.connection(instance).update("test")
    assert (status["status"], provider.tokens) == ("AUTH_ERROR", 1)
    calls = provider.calls
    for _ in range(5):
        await world.connection(instance).update("await_settled")
    assert (provider.tokens, provider.calls) == (1, calls)
    # From AUTH_ERROR the renewal is news: the token that it brought is looked at once, and not renewed.
    await world.connection(instance).update("test")
    await eventually(lambda: _looked(provider, calls + 3))
    for _ in range(5):
        await world.connection(instance).update("await_settled")
    assert (provider.tokens, provider.calls) == (2, calls + 3)


async def test_strategy_manual_renews_nothing(world: World, provider: Guarded) -> None:
    provider.good = frozenset({"planted-access-0"})
    instance = await provider.connected(refreshTokenConfig={"strategy": "manual"})
    provider.good = frozenset()
    assert (await world.connection(instance).update("test"))["status"] == "AUTH_ERROR"
    assert provider.tokens == 0


async def test_a_grant_that_a_test_finds_dead_is_told_at_once(world: World, provider: Guarded) -> None:
    provider.good = frozenset({"planted-access-0"})
    instance = await provider.connected()
    provider.good = frozenset()
    provider.token_answers.append(JSONResponse({"error": "invalid_grant"}, 400))
    status = await world.connection(instance).update("test")
    assert (status["status"], status["error"]["code"]) == ("AUTH_ERROR", "REAUTH_REQUIRED")
    assert status["error"]["details"] == {"cause": "revoked"}


async def test_tests_have_a_queue_of_their_own(world: World, name: str) -> None:
    instance = await world.instance(definition_file(name, connectionTest="me", methods=[method("me", "GET", "/me")]))
    history = await world.temporal.get_workflow_handle(connection_workflow_id(instance["id"])).fetch_history()
    scheduled = [event.activity_task_scheduled_event_attributes for event in history.events]
    queues = {one.activity_type.name: one.task_queue.name for one in scheduled if one.activity_id}
    assert queues.pop(TEST_CONNECTION) == connection_tests_queue(TASK_QUEUE)
    assert connection_tests_queue(TASK_QUEUE) not in queues.values()


@pytest.mark.slow
async def test_a_flood_of_tests_that_hang_delays_no_refresh(world: World, provider: Guarded) -> None:
    provider.good = frozenset({"planted-access-0"})
    instance = await provider.connected()
    wanted = ConnectionTest(instance_id=instance["id"], scope="global")
    serve, released, hanging = provider.serve, asyncio.Event(), 0

    async def hangs(request: Request) -> Response:
        nonlocal hanging
        if request.url.path != "/things":
            return await serve(request)
        hanging += 1
        await released.wait()
        return JSONResponse({})

    world.upstream.handler = hangs
    flood = [
        await world.temporal.start_activity(
            TEST_CONNECTION,
            wanted,
            id=f"flood-{uuid.uuid4()}",
            task_queue=connection_tests_queue(TASK_QUEUE),
            start_to_close_timeout=timedelta(minutes=2),
            result_type=dict,
        )
        for _ in range(520)
    ]
    try:

        async def is_full() -> bool:
            return hanging >= 50

        await eventually(is_full)
        began = time.monotonic()
        assert (await world.integrations.refresh(instance["id"]))["generation"] == 2
        assert time.monotonic() - began < 5
        assert hanging == 50
    finally:
        released.set()
        for test in flood:
            with contextlib.suppress(RPCError):  # it has ended by itself
                await test.terminate(reason="the test is over")


async def _looked(provider: Guarded, calls: int) -> bool:
    return provider.calls >= calls
