"""Many calls at once over three worker processes meet one token that is no longer good: one token request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from temporalio.client import WorkflowHandle

from integration_service.contracts.calls import MethodCall
from integration_service.contracts.names import refresh_workflow_id
from integration_service.contracts.wire import JsonObject
from integration_service.storage.vault.keyring import Keyring
from tests.identity import Identity
from tests.oauth_setting import Setting
from tests.soak.conftest import Measured, Provide
from tests.soak.workers import Workers
from tests.waiting import eventually
from tests.world import World, definition_file, method

pytestmark = pytest.mark.slow


class ResourceServer:
    """Takes every access token, except those that it has seen when it is told that they are over."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.over: set[str] = set()
        self.refused = 0

    async def __call__(self, request: Request) -> Response:
        token = request.headers["authorization"]
        self.seen.add(token)
        if token in self.over:
            self.refused += 1
            return JSONResponse({}, 401)
        return JSONResponse({"ok": True})


async def test_a_refused_token(
    world: World, workers: Workers, keyring: Keyring, provide: Provide, name: str, full: bool, measured: Measured
) -> None:
    """Calls find out by the upstream's 401."""
    calls = 300 if full else 60
    identity = await provide()
    server = world.upstream.handler = ResourceServer()
    instance = await _connected(Setting(world, identity, keyring, name))
    async with workers.joined_by(2):
        await _all_serve(world, name)
        await _call(world, instance, 10)
        server.over |= server.seen
        figures = await _prove(world, identity, instance, calls)
    assert server.refused >= 1
    assert len(server.seen) == 2
    measured(f"{figures}, {server.refused} of them met a 401")


async def test_an_expired_token(
    world: World, workers: Workers, keyring: Keyring, provide: Provide, name: str, full: bool, measured: Measured
) -> None:
    """Calls find out by the token's own time, and have to start `RefreshOAuth`, which was terminated."""
    calls, seconds = (300, 60) if full else (60, 15)
    identity = await provide(access_seconds=seconds)
    server = world.upstream.handler = ResourceServer()
    setting = Setting(world, identity, keyring, name)
    async with workers.joined_by(2):
        await _all_serve(world, name)
        instance = await _connected(setting, refreshTokenConfig={"strategy": "auto", "timeBeforeExpiryMs": 0})
        await _call(world, instance, 10)
        await world.temporal.get_workflow_handle(refresh_workflow_id(instance["id"])).terminate("nobody refreshes")
        server.over |= server.seen
        expires_at = datetime.fromisoformat(instance["expiresAt"])
        await eventually(lambda: _is_past(expires_at), within_s=seconds + 5)
        assert identity.token_requests(grant_type="refresh_token") == []
        figures = await _prove(world, identity, instance, calls)
    assert server.refused == 0
    assert len(server.seen) == 2
    measured(figures)


async def _connected(setting: Setting, **oauth2: Any) -> JsonObject:
    """An instance whose calls go to the test's own upstream."""
    file = setting.identity.definition(setting.name, **oauth2)
    file["configSchema"]["properties"]["api"] = {"type": "string"}
    del file["connectionTest"]
    await setting.world.publish({**file, "baseUrl": "{config.api}", "methods": [method("get", "GET", "/things/{id}")]})
    await setting.register(setting.identity.app)
    config = {"url": setting.identity.url, "api": setting.world.upstream.url}
    return await setting.authorized(await setting.world.connect(setting.name, config=config))


async def _call(world: World, instance: JsonObject, count: int) -> list[WorkflowHandle[Any, Any]]:
    """Calls at once; all of them succeed."""

    async def one(number: int) -> WorkflowHandle[Any, Any]:
        call = MethodCall(instance_id=instance["id"], method="get", params={"id": number})
        handle = await world.integrations.start_call(call)
        result = await world.integrations.result_of(handle)
        assert result.status_code == 200
        return handle

    return await asyncio.gather(*(one(number) for number in range(count)))


async def _prove(world: World, identity: Identity, instance: JsonObject, calls: int) -> str:
    before, began = len(identity.token_requests()), time.monotonic()
    handles = await _call(world, instance, calls)
    took = time.monotonic() - began
    requests = identity.token_requests()[before:]
    assert [(line["grant_type"], line["status"]) for line in requests] == [("refresh_token", 200)]
    processes = await _processes(handles)
    assert len(processes) == 3
    failed = Counter(row["code"] for row in await world.audit(instance) if row["status"] != "SUCCEEDED")
    assert failed == {}, failed
    shares = ", ".join(str(count) for count in sorted(processes.values()))
    return f"{calls} calls in {took:.1f} s over 3 processes ({shares} attempts), 1 token request"


async def _all_serve(world: World, name: str) -> None:
    """Call until three processes have taken calls."""
    instance = await world.instance(definition_file(f"{name}-warm"))
    world.upstream.handler, handler = None, world.upstream.handler
    serving: set[str] = set()

    async def all_do() -> bool:
        serving.update(await _processes(await _call(world, instance, 20)))
        return len(serving) == 3

    await eventually(all_do, within_s=60)
    world.upstream.handler = handler


async def _processes(handles: list[WorkflowHandle[Any, Any]]) -> Counter[str]:
    """Which worker processes ran the calls' attempts, and how many each."""
    found: Counter[str] = Counter()
    for handle in handles:
        async for event in handle.fetch_history_events():
            if event.HasField("activity_task_started_event_attributes"):
                found[event.activity_task_started_event_attributes.identity] += 1
    return found


async def _is_past(moment: datetime) -> bool:
    return datetime.now(UTC) > moment + timedelta(milliseconds=50)
