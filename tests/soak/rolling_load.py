"""Calls of every sort without a pause, and what their upstream and their callers saw of each."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.wire import JsonObject
from tests.waiting import eventually
from tests.world import World, definition_file, method

KEYS = "Idempotency-Key"
UNSAFE = ("once", "slow_once", "limited", "parked")
"""Neither idempotent nor keyed: a second request would be a second effect."""
_KINDS = ("get", "keyed", "once", "slow_get", "slow_keyed", "slow_once", "limited")
_PLACES = {"requestsPerMinute": 120, "burstLimit": 1}
_PAUSE_S = (0.1, 0.4)
_WITHIN = timedelta(minutes=5)


@dataclass
class OnQueue(World):
    """The same world, its calls and connections on another task queue."""

    queue: str = ""

    @cached_property
    def integrations(self) -> Integrations:
        return Integrations(self.temporal, task_queue=self.queue)


def definition(name: str, **changes: Any) -> JsonObject:
    """`slow_…` take their time; so many callers want `limited` that they wait for longer than one waits in a slot."""
    methods = []
    for prefix, path in (("", "/quick"), ("slow_", "/slow")):
        methods += [
            method(f"{prefix}get", "GET", path),
            method(f"{prefix}keyed", "POST", path, idempotencyHeader=KEYS),
            method(f"{prefix}once", "POST", path),
        ]
    limited = method("limited", "POST", "/quick", rateLimits=_PLACES)
    return definition_file(name, methods=[*methods, limited], **changes)


@dataclass(frozen=True)
class Done:
    """A call that was answered, on one clock."""

    call: str
    began: float
    ended: float


@dataclass
class Load:
    """Callers that rest for a moment only. The first call that fails ends the test."""

    world: OnQueue
    plain: JsonObject
    slow_s: float
    sent: dict[str, list[str | None]] = field(default_factory=lambda: defaultdict(list))
    """For each call, the idempotency key of each request that came."""
    under_way: Counter[str] = field(default_factory=Counter)
    done: list[Done] = field(default_factory=list)
    over: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(11))
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def serve(self, request: Request) -> Response:
        """The upstream: each request of it is an effect."""
        given = request.query_params if request.method == "GET" else await request.json()
        call = given["call"]
        self.sent[call].append(request.headers.get(KEYS))
        if request.url.path == "/slow":
            self.under_way[kind_of(call)] += 1
            try:
                await asyncio.sleep(self.chance.uniform(self.slow_s / 2, self.slow_s))
            finally:
                self.under_way[kind_of(call)] -= 1
        return JSONResponse({"call": call})

    def callers(self, connected: list[JsonObject]) -> list[Coroutine[Any, Any, None]]:
        """All that are to run until `over`."""
        workflows = [(self.plain, kind) for kind in (*_KINDS, "limited", "limited", "limited")]
        workflows += [(one, "whoami") for one in connected]
        return [
            *(self._until_over(self.workflow, instance, kind) for instance, kind in workflows),
            *(self._until_over(self.standalone, self.plain, "slow_keyed") for _ in range(2)),
        ]

    async def _until_over(
        self, way: Callable[[JsonObject, str, str], Awaitable[None]], instance: JsonObject, name: str
    ) -> None:
        while not self.over:
            call, began = f"{name}-{self.world.queue}-{next(self.numbers)}", time.monotonic()
            await way(instance, name, call)
            self.done.append(Done(call, began, time.monotonic()))
            await asyncio.sleep(self.chance.uniform(*_PAUSE_S))

    async def workflow(self, instance: JsonObject, name: str, call: str) -> None:
        answer = await self.world.integrations.call(_call(instance, name, call), workflow_id=call)
        assert answer.data == ({"user": "ada"} if name == "whoami" else {"call": call})

    async def standalone(self, instance: JsonObject, name: str, call: str) -> None:
        answer = await self.world.temporal.execute_activity(
            f"{instance['definition']}.{name}",
            _call(instance, name, call).to_wire(),
            id=call,
            task_queue=self.world.queue,
            start_to_close_timeout=_WITHIN,
            schedule_to_close_timeout=_WITHIN,
            heartbeat_timeout=timedelta(seconds=10),
            result_type=dict,
        )
        assert answer["data"] == {"call": call}

    async def goes_on(self, *, within_s: float) -> None:
        """Returns once each sort of call has been begun and answered after this."""
        since = time.monotonic()

        async def answered() -> bool:
            return {kind_of(one.call) for one in self.done if one.began > since} == {*_KINDS, "whoami"}

        await eventually(answered, within_s=within_s)

    async def holds_slow_ones(self) -> None:
        """Returns while one of each sort of slow call is at the upstream."""

        async def held() -> bool:
            return all(self.under_way[kind] for kind in ("slow_get", "slow_keyed", "slow_once"))

        await eventually(held, within_s=_WITHIN.total_seconds())


@dataclass
class Parked:
    """Unsafe calls of an instance that nobody has given a credential yet; `calls` are their names."""

    load: Load
    instance: JsonObject
    calls: list[str]
    tasks: list[asyncio.Task[None]]

    @classmethod
    async def begin(cls, load: Load, group: asyncio.TaskGroup, instance: JsonObject, count: int) -> Parked:
        """Returns once all of them wait."""
        calls = [f"parked-{load.world.queue}-{next(load.numbers)}" for _ in range(count)]
        tasks = [group.create_task(load.workflow(instance, "once", call)) for call in calls]

        async def all_wait() -> bool:
            row = await load.world.database.one(
                "SELECT count(*) AS waiting FROM integrations.waiters WHERE workflow_id = ANY(%(calls)s)",
                {"calls": calls},
            )
            return row is not None and row["waiting"] == count

        await eventually(all_wait, within_s=_WITHIN.total_seconds())
        return cls(load, instance, calls, tasks)

    async def end(self, *, within_s: float) -> None:
        """Somebody gives the credential; all of them come to their end."""
        assert not any(task.done() for task in self.tasks)
        key = {"key": "open sesame", "headerOrParam": "X-Key", "inHeader": True}
        await self.load.world.submit(self.instance, {"type": "api_key", "apiKey": key})
        await asyncio.wait_for(asyncio.gather(*self.tasks), within_s)


def kind_of(call: str) -> str:
    return call.split("-", 1)[0]


def _call(instance: JsonObject, name: str, call: str) -> MethodCall:
    return MethodCall(
        instance_id=instance["id"],
        method=name,
        params={} if name == "whoami" else {"call": call},
        on_auth_error="wait" if kind_of(call) == "parked" else "fail",
        correlation_id=call,
    )
