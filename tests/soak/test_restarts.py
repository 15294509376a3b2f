"""Postgres and Temporal crash under load, again and again: what was acknowledged is recorded, and nothing is stuck."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from integration_service.activities.webhooks import new_secret
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.events import NewSubscription
from integration_service.contracts.wire import JsonObject, parse
from integration_service.devstack.options import StackOptions
from integration_service.devstack.stack import Stack
from integration_service.plugin import IntegrationClientPlugin
from integration_service.storage.database import Database
from integration_service.storage.subscriptions import Subscriptions
from integration_service.storage.vault.keyring import Keyring
from tests.oauth_setting import Setting
from tests.soak.conftest import Measured, Provide
from tests.soak.outages import Servers
from tests.upstream import Upstream
from tests.waiting import eventually
from tests.world import World, definition_file, method

pytestmark = pytest.mark.slow

_RECOVERY_S = 30
_PATIENCE_S = 120
_PAUSE_S = (0.2, 0.6)
"""Between two calls of a caller: so that the load leaves the machine something to restart with."""


@pytest.fixture
async def crashing() -> AsyncIterator[World]:
    """A stack of the test's own, with real files: nobody else's calls are disturbed."""
    data_dir = Path(tempfile.mkdtemp(prefix="integrations-restarts-"))
    data_dir.rmdir()
    running = Stack(StackOptions(data_dir, temporal_port=0, ui_port=0, gateway_port=0, postgres_port=0))
    async with running, Database(running.ready.database) as database, Upstream() as upstream:
        temporal = await Client.connect(running.ready.temporal, plugins=[IntegrationClientPlugin()])
        yield World(stack=running, database=database, temporal=temporal, upstream=upstream)
    running.destroy()
    shutil.rmtree(data_dir, ignore_errors=True)


@dataclass(frozen=True)
class Call:
    """One that was answered: when it was started, when its answer came, on one clock."""

    workflow_id: str
    method: str
    began: float
    ended: float


@dataclass
class Load:
    """Callers that try again for as long as nobody answers, and what came of it."""

    world: World
    done: list[Call] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    refreshes: list[float] = field(default_factory=list)
    received: dict[str, JsonObject] = field(default_factory=dict)
    effects: Counter[str] = field(default_factory=Counter)
    over: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(3))
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def serve(self, request: Request) -> Response:
        """The upstream: receives the events, and counts the effects."""
        if request.url.path == "/hooks":
            event = await request.json()
            self.received[event["id"]] = event
            return Response(status_code=204)
        if request.method == "POST":
            self.effects[(await request.json())["call"]] += 1
        return JSONResponse({"ok": True})

    async def call(self, instance: JsonObject, name: str, params: Callable[[str], JsonObject]) -> None:
        """The same workflow id again is the same call: it runs once, however often it is asked for."""
        while not self.over:
            id_, began = f"restarts-{uuid.uuid4()}", time.monotonic()
            call = MethodCall(instance_id=instance["id"], method=name, params=params(id_))
            try:
                await self._until_answered(call, id_)
            except IntegrationError as error:
                if error.code != "OUTCOME_UNKNOWN" or name != "once":
                    raise
                self.unknown[id_] += 1
            else:
                self.done.append(Call(id_, name, began, time.monotonic()))
            await asyncio.sleep(self.chance.uniform(*_PAUSE_S))

    async def _until_answered(self, call: MethodCall, id_: str) -> None:
        while True:
            try:
                await self.world.integrations.call(call, workflow_id=id_)
            except IntegrationError as error:
                if error.code != "UNAVAILABLE" or await self._has_failed(id_):
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def _has_failed(self, id_: str) -> bool:
        """Whether it was the call's own answer, and not that nobody answered: an outage is waited out by the call."""
        try:
            found = await self.world.temporal.get_workflow_handle(id_).describe()
        except RPCError:
            return False
        return found.status is WorkflowExecutionStatus.FAILED

    async def refresh(self, instance: JsonObject) -> None:
        """New tokens, again and again; one that waits says for how long."""
        while not self.over:
            try:
                answer = await self.world.integrations.refresh(instance["id"])
            except IntegrationError as error:
                if error.code != "UNAVAILABLE":
                    raise
                await asyncio.sleep(0.2)
                continue
            if (wait := answer.get("retryAfterMs")) is None:
                self.refreshes.append(time.monotonic())
            await asyncio.sleep(self.chance.uniform(1, 2) if wait is None else wait / 1000)

    def ended_after(self, moment: float) -> float | None:
        """When the first call ended that was started after `moment`."""
        return min((call.ended for call in self.done if call.began > moment), default=None)


async def test_crashes_of_postgres_and_of_temporal(
    crashing: World, provide: Provide, name: str, full: bool, measured: Measured
) -> None:
    """A stack of its own: everything lies in real files, and its supervisor starts what was killed."""
    world, times, callers, connections = crashing, 20 if full else 1, 8 if full else 4, 4 if full else 2
    keyring = Keyring.load(world.stack.environment["INTEGRATIONS_KEYRING"])
    load, servers = Load(world), Servers(world.stack)
    world.upstream.handler = load.serve
    plain = await world.instance(
        definition_file(name, methods=[method("get", "GET", "/things/1"), method("once", "POST", "/things")])
    )
    # No grace: a token that is sent twice ends its connection.
    setting = Setting(world, await provide(grace_seconds=0), keyring, f"{name}-oauth")
    await setting.publish()
    fresh = [await setting.authorized() for _ in range(connections)]
    asked = {"webhook": {"url": f"{world.upstream.url}/hooks"}, "definition": name, "eventTypes": ["*"]}
    await Subscriptions(world.database, keyring).add(parse(NewSubscription, asked), secret=new_secret())

    drivers = [
        *(load.call(plain, "get", lambda _: {}) for _ in range(callers)),
        *(load.call(plain, "once", lambda id_: {"call": id_}) for _ in range(callers // 2)),
        *(load.call(instance, "whoami", lambda _: {}) for instance in fresh),
        *(load.refresh(instance) for instance in fresh),
    ]
    tasks = [asyncio.create_task(driver) for driver in drivers]
    began, recoveries = time.monotonic(), {"Postgres": list[float](), "Temporal": list[float]()}
    outages: list[tuple[float, float]] = []
    try:
        for number in range(times):
            for server, took in recoveries.items():
                await _settled(load, tasks)
                killed = time.monotonic()
                if server == "Postgres":
                    await servers.kill_postgres(immediate=number % 2 == 0)
                else:
                    await servers.kill_temporal()
                back = await _answers_again(load, tasks, time.monotonic())
                took.append(back - killed)
                outages.append((killed, back))
        await _settled(load, tasks)
        load.over = True
        await asyncio.wait_for(asyncio.gather(*tasks), _PATIENCE_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    took_s = time.monotonic() - began

    await _nothing_is_stuck(world, [plain, *fresh])
    await _everything_is_recorded(load, name, plain)
    for instance in fresh:
        assert (await world.connection(instance).status())["status"] == "CONNECTED"
    assert {line["status"] for line in setting.identity.token_requests()} == {200}
    assert max(load.effects.values()) == 1
    once = {call.workflow_id for call in load.done if call.method == "once"}
    assert once <= set(load.effects) <= once | set(load.unknown)
    across = [
        call.ended - call.began
        for call in load.done
        if any(call.began < back and call.ended > killed for killed, back in outages)
    ]
    for server, took in recoveries.items():
        assert _p99(took) < _RECOVERY_S, (server, took)
        measured(
            f"{server} crashed {times} times: from the kill to the first new call's answer {min(took):.1f} to "
            f"{max(took):.1f} s, p99 {_p99(took):.1f} s"
        )
    assert _p99(across) < _RECOVERY_S
    measured(
        f"{len(load.done)} calls and {len(load.refreshes)} refreshes in {took_s:.0f} s, {len(across)} calls across an "
        f"outage: p50 {sorted(across)[len(across) // 2]:.1f} s, p99 {_p99(across):.1f} s, longest {max(across):.1f} s; "
        f"{len(load.unknown)} OUTCOME_UNKNOWN, {len(load.received)} events; every call recorded, none stuck"
    )


async def _settled(load: Load, tasks: list[asyncio.Task[None]]) -> None:
    """Calls and refreshes go on, and the supervisor takes what it started for healthy: it waits longer otherwise."""
    began = time.monotonic()

    async def goes_on() -> bool:
        _raise(tasks)
        healthy = time.monotonic() > began + 11
        return healthy and load.ended_after(began) is not None and max(load.refreshes, default=0) > began

    await eventually(goes_on, within_s=_PATIENCE_S)


async def _answers_again(load: Load, tasks: list[asyncio.Task[None]], gone: float) -> float:
    """When the first call was answered that was started without the server."""

    async def answered() -> float | None:
        _raise(tasks)
        return load.ended_after(gone)

    return await eventually(answered, within_s=_PATIENCE_S)


def _raise(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


async def _nothing_is_stuck(world: World, instances: list[JsonObject]) -> None:
    """Every call has ended, and every workflow that lives on answers what makes it do something."""

    async def no_call_runs() -> bool:
        running = await world.temporal.count_workflows("WorkflowType = 'ExecuteMethod' AND ExecutionStatus = 'Running'")
        return running.count == 0

    await eventually(no_call_runs, within_s=_PATIENCE_S)
    for instance in instances:
        tested = await world.connection(instance).update("test")
        assert tested["status"] == "CONNECTED"
        if tested["authType"] == "oauth2":
            assert "retryAfterMs" not in await world.integrations.refresh(instance["id"])
    async for one in world.temporal.list_workflows("ExecutionStatus = 'Failed' AND WorkflowType != 'ExecuteMethod'"):
        raise AssertionError(f"{one.workflow_type} {one.id} failed")


async def _everything_is_recorded(load: Load, definition: str, plain: JsonObject) -> None:
    """A row for each call that was answered, and an event for each row that somebody subscribed to."""
    rows = await load.world.database.all(
        "SELECT workflow_id, status, instance_id, execution_key, attempt FROM audit.executions"
    )
    succeeded = {row["workflow_id"] for row in rows if row["status"] == "SUCCEEDED"}
    assert {call.workflow_id for call in load.done} <= succeeded
    expected = {(str(row["execution_key"]), row["attempt"]) for row in rows if str(row["instance_id"]) == plain["id"]}

    async def told() -> bool:
        events = [event["data"] for event in load.received.values() if "executionKey" in event["data"]]
        return {(data["executionKey"], data["attempt"]) for data in events} == expected

    await eventually(told, within_s=_PATIENCE_S)


def _p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]
