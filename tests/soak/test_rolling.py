"""Worker build after worker build is rolled over the one before, under load: nothing fails, nothing happens twice."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from integration_service.contracts.names import connection_workflow_id, control_queue, refresh_workflow_id
from integration_service.contracts.wire import JsonObject
from integration_service.plugin import IntegrationPlugin
from integration_service.storage.vault.keyring import Keyring
from tests.deployments import AUTO_UPGRADE, Deployment, version_of
from tests.oauth_setting import Setting
from tests.soak.conftest import Measured, Provide
from tests.soak.rolling_load import UNSAFE, Load, OnQueue, Parked, definition, kind_of
from tests.waiting import eventually
from tests.worker_process import WorkerProcess, queue_name, worker_process
from tests.world import World

pytestmark = pytest.mark.slow

_WITHIN_S = 300
"""A bound, and no measure: what is slow on a busy machine is not stuck."""
_GRACE_S = 10
_ASLEEP = 3
"""Calls that wait for a person across each roll."""
_REPLAYED = {True: 1500, False: 150}


@dataclass
class Rolling:
    """Build after build of the worker of one task queue, with Worker Versioning or without."""

    world: OnQueue
    processes: AsyncExitStack
    deployment: Deployment | None
    worker: WorkerProcess | None = None
    build: str = ""

    async def start(self, build: str) -> WorkerProcess:
        named = {"deployment": self.deployment.name, "build_id": build} if self.deployment else {}
        started = await self.processes.enter_async_context(
            worker_process(self.world.stack, self.world.queue, worker_grace=str(_GRACE_S), **named)
        )
        await started.ready(within_s=_WITHIN_S)
        return started

    async def first(self) -> None:
        self.worker, self.build = await self.start("b0"), "b0"
        if self.deployment is not None:
            await self.deployment.make_current("b0")

    async def over(self, load: Load, build: str, *, stop_first: bool) -> float:
        """One roll, as docs/operating.md has it; returns how long the old worker took to stop.

        `stop_first` is the hurried operator: the old worker is gone before its calls are moved.
        """
        new, old, before = await self.start(build), self.worker, self.build
        assert old is not None
        deployment = self.deployment
        if deployment is not None:
            await deployment.ramp(build)
            await eventually(lambda: self._serves(build), within_s=_WITHIN_S)
            await load.holds_slow_ones()
            await deployment.make_current(build)
            if not stop_first:
                await deployment.move(before, build)
        await load.holds_slow_ones()
        began = time.monotonic()
        old.tell()
        assert await old.code(within_s=_WITHIN_S) == 0, old.log.read_text()
        took = time.monotonic() - began
        assert " ERROR " not in old.log.read_text(), old.log.read_text()
        if deployment is not None:
            await eventually(lambda: self._nothing_is_pinned(before, build), within_s=_WITHIN_S)
        self.worker, self.build = new, build
        return took

    async def _serves(self, build: str) -> bool:
        """While it ramps, some of what begins."""
        assert self.deployment is not None
        version = f"TemporalWorkerDeploymentVersion = '{self.deployment.name}:{build}'"
        counted = await self.world.temporal.count_workflows(f"{version} AND WorkflowType = 'ExecuteMethod'")
        return counted.count > 0

    async def _nothing_is_pinned(self, old: str, build: str) -> bool:
        assert self.deployment is not None
        if await self.deployment.held_by(old) == 0:
            return True
        await self.deployment.move(old, build)
        return False


@pytest.fixture
async def on_queue(world: World) -> AsyncIterator[OnQueue]:
    """Whatever lives on in the end is terminated: nobody serves that queue any more."""
    mine = OnQueue(world.stack, world.database, world.temporal, world.upstream, queue_name())
    yield mine
    async for one in mine.temporal.list_workflows(f"{_of(mine)} AND ExecutionStatus = 'Running'"):
        await mine.temporal.get_workflow_handle(one.id).terminate()


@asynccontextmanager
async def _rolling(world: OnQueue, *, versioned: bool) -> AsyncIterator[Rolling]:
    async with AsyncExitStack() as processes:
        rolling = Rolling(world, processes, Deployment(world) if versioned else None)
        await rolling.first()
        yield rolling


@pytest.mark.parametrize("way", ["with versions", "in place"])
async def test_builds_roll_under_load(
    on_queue: OnQueue, keyring: Keyring, provide: Provide, name: str, way: str, full: bool, measured: Measured
) -> None:
    rolls, slow_s, seconds = (12, 4.0, 12) if full else (2, 1.0, 10)
    identity = await provide(access_seconds=seconds)
    stops, asleep, began = [], [], time.monotonic()
    async with _rolling(on_queue, versioned=way == "with versions") as rolling:
        connected = [await Setting(on_queue, identity, keyring, f"{name}-{n}").connected() for n in range(2)]
        load = Load(on_queue, await on_queue.instance(definition(name)), slow_s)
        await on_queue.publish(definition(f"{name}-key", authType="api_key"))
        on_queue.upstream.handler = load.serve
        before = len(identity.token_requests(grant_type="refresh_token"))
        async with asyncio.TaskGroup() as group:
            for caller in load.callers(connected):
                group.create_task(caller)
            await load.goes_on(within_s=_WITHIN_S)
            for number in range(1, rolls + 1):
                parked = await Parked.begin(load, group, await on_queue.connect(f"{name}-key"), _ASLEEP)
                stops.append(await rolling.over(load, f"b{number}", stop_first=number % 2 == 0))
                await parked.end(within_s=_WITHIN_S)
                asleep += parked.calls
                await load.goes_on(within_s=_WITHIN_S)
                await _all_moved_on(rolling, load.plain, connected)
            load.over = True
        took = time.monotonic() - began
        await _no_call_runs(on_queue)
        refreshes = identity.token_requests(grant_type="refresh_token")[before:]
        replayed = await _replay(on_queue, _REPLAYED[full])
    repeated = _effects(load, asleep)
    await _audited(on_queue, load, asleep)
    spent = [line["refresh_token_sha256"] for line in refreshes if line["status"] == 200]
    assert len(spent) == len(set(spent))
    across = [one.ended - one.began for one in load.done]
    measured(
        f"{rolls} rolls in {took:.0f} s, {len(load.done)} calls and {len(asleep)} parked ones, none failed, "
        f"{sum(kind_of(call) in UNSAFE for call in load.sent)} unsafe ones sent once each, {repeated} safe ones sent "
        f"again; slowest call {max(across):.1f} s; {len(spent)} refreshes, none spent twice; old workers stopped "
        f"within {max(stops):.1f} s; {replayed} histories replayed"
    )


def _effects(load: Load, asleep: list[str]) -> int:
    """No effect is missing, and none is there twice. Returns how many safe calls were sent again."""
    assert load.sent.keys() == {*(one.call for one in load.done if kind_of(one.call) != "whoami"), *asleep}
    keys = [keys[0] for call, keys in load.sent.items() if "keyed" in call]
    assert None not in keys
    assert len(keys) == len(set(keys))
    for call, sent in load.sent.items():
        assert len(set(sent)) == 1, call
        assert len(sent) == 1 or kind_of(call) not in UNSAFE, call
    return sum(len(sent) > 1 for sent in load.sent.values())


async def _audited(world: OnQueue, load: Load, asleep: list[str]) -> None:
    """One row of success for each call, and of failure only where a call waited: for its place, or for a person."""
    rows = await world.database.all(
        "SELECT correlation_id, status, code FROM audit.executions WHERE correlation_id LIKE %(mine)s",
        {"mine": f"%-{world.queue}-%"},
    )
    succeeded = [row["correlation_id"] for row in rows if row["status"] == "SUCCEEDED"]
    assert sorted(succeeded) == sorted([*(one.call for one in load.done), *asleep])
    failed = {(kind_of(row["correlation_id"]), row["code"]) for row in rows if row["status"] != "SUCCEEDED"}
    assert failed == {("limited", "RATE_LIMITED"), ("parked", "INSTANCE_NOT_CONNECTED")}


async def _all_moved_on(rolling: Rolling, plain: JsonObject, connected: list[JsonObject]) -> None:
    """With the next thing that each is told, which for one that refreshes comes by itself too."""
    world = rolling.world
    for one in (plain, *connected):
        assert (await world.connection(one).test())["status"] == "CONNECTED"
    for one in connected:
        assert "retryAfterMs" not in await world.integrations.refresh(one["id"])
    if rolling.deployment is not None:
        ids = [connection_workflow_id(one["id"]) for one in (plain, *connected)]
        for id_ in [*ids, *(refresh_workflow_id(one["id"]) for one in connected)]:
            assert await version_of(world.temporal.get_workflow_handle(id_)) == (AUTO_UPGRADE, rolling.build), id_


async def _no_call_runs(world: OnQueue) -> None:
    async def none() -> bool:
        running = f"{_of(world)} AND WorkflowType = 'ExecuteMethod' AND ExecutionStatus = 'Running'"
        return (await world.temporal.count_workflows(running)).count == 0

    await eventually(none, within_s=_WITHIN_S)
    failed = f"{_of(world)} AND ExecutionStatus IN ('Failed', 'TimedOut', 'Terminated', 'Canceled')"
    assert (await world.temporal.count_workflows(failed)).count == 0


async def _replay(world: OnQueue, most: int) -> int:
    """Connections, refreshes and what waited whole; of the other calls the newest. Returns how many there were."""
    calls = f"{_of(world)} AND WorkflowType = 'ExecuteMethod'"
    count, replayer = itertools.count(), Replayer(workflows=[], plugins=[IntegrationPlugin()])

    async def histories() -> AsyncIterator[WorkflowHistory]:
        for query, limit in (
            (f"{_of(world)} AND WorkflowType != 'ExecuteMethod'", None),
            (f"{calls} AND WorkflowId STARTS_WITH 'parked-'", None),
            (f"{calls} AND WorkflowId STARTS_WITH 'slow_once-'", most),
            (calls, most),
        ):
            async for history in world.temporal.list_workflows(query, limit=limit).map_histories():
                next(count)
                yield history

    await replayer.replay_workflows(histories())
    return next(count)


def _of(world: OnQueue) -> str:
    return f"TaskQueue IN ('{world.queue}', '{control_queue(world.queue)}')"
