"""Workers are killed with -9 while requests are on their way: what must not happen twice does not."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import psutil
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import JsonObject
from tests.soak.conftest import Measured
from tests.soak.workers import Workers
from tests.waiting import eventually
from tests.world import World, definition_file, method

pytestmark = pytest.mark.slow

_RECOVERY_S = 120
_KEYS = "Idempotency-Key"


@dataclass
class Effects:
    """An upstream whose every request has an effect, and which takes its time to answer."""

    seen: dict[str, list[str | None]] = field(default_factory=lambda: defaultdict(list))
    """For each call, the idempotency key of each request that came."""
    under_way: int = 0
    moments: random.Random = field(default_factory=lambda: random.Random(7231))

    async def __call__(self, request: Request) -> Response:
        self.seen[(await request.json())["call"]].append(request.headers.get(_KEYS))
        self.under_way += 1
        try:
            await asyncio.sleep(self.moments.uniform(0.1, 0.6))
        finally:
            self.under_way -= 1
        return JSONResponse({"made": True})


@dataclass
class Run:
    """Callers that never rest, and what their calls came to."""

    world: World
    instance: JsonObject
    outcomes: Counter[str] = field(default_factory=Counter)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    over: bool = False

    async def call(self, name: str) -> None:
        while not self.over:
            call = f"{name}-{next(self.numbers)}"
            try:
                result = await self.world.call(self.instance, name, {"call": call})
            except IntegrationError as error:
                self.outcomes[f"{name} {error.code}"] += 1
            else:
                assert result.data == {"made": True}
                self.outcomes[f"{name} done"] += 1


async def test_kills_double_nothing(world: World, workers: Workers, name: str, full: bool, measured: Measured) -> None:
    """`once` is neither idempotent nor keyed, `keyed` carries a key; both are called all the time."""
    kills, processes, callers = (100, 4, 8) if full else (3, 2, 4)
    upstream = world.upstream.handler = Effects()
    instance = await world.instance(
        definition_file(
            name,
            methods=[
                method("once", "POST", "/effects"),
                method("keyed", "POST", "/effects", idempotencyHeader=_KEYS),
            ],
        )
    )
    run, moments, began = Run(world, instance), random.Random(2031), time.monotonic()
    killed = 0
    async with workers.joined_by(processes - 1):
        calling = [asyncio.create_task(run.call(kind)) for kind in ("once", "keyed") for _ in range(callers)]
        try:
            while killed < kills:
                await eventually(lambda: _has(upstream), within_s=_RECOVERY_S)
                await asyncio.sleep(moments.uniform(0, 0.5))
                one = moments.choice(await eventually(lambda: _running(workers), within_s=_RECOVERY_S))
                if upstream.under_way > 0:
                    one.kill()
                    killed += 1
        finally:
            run.over = True
        await asyncio.wait_for(asyncio.gather(*calling), 3 * _RECOVERY_S)
    once = {call: keys for call, keys in upstream.seen.items() if call.startswith("once")}
    keyed = {call: keys for call, keys in upstream.seen.items() if call.startswith("keyed")}
    assert max(len(keys) for keys in once.values()) == 1
    assert all(len(set(keys)) == 1 and keys[0] is not None for keys in keyed.values())
    assert len({keys[0] for keys in keyed.values()}) == len(keyed)
    assert set(run.outcomes) <= {"once done", "once OUTCOME_UNKNOWN", "keyed done"}, run.outcomes
    # What was told as unknown may have had its effect; what was told as done did, once.
    assert run.outcomes["once done"] <= len(once) <= run.outcomes["once done"] + run.outcomes["once OUTCOME_UNKNOWN"]
    assert len(keyed) == run.outcomes["keyed done"]
    repeated = sum(len(keys) > 1 for keys in keyed.values())
    measured(
        f"{killed} kills with requests on their way, of {processes} workers in "
        f"{time.monotonic() - began:.0f} s; neither idempotent nor keyed: {len(once)} requests, none twice, "
        f"{run.outcomes['once OUTCOME_UNKNOWN']} OUTCOME_UNKNOWN; keyed: {len(keyed)} calls, {repeated} sent more than "
        "once, each under one key"
    )


async def _has(upstream: Effects) -> bool:
    return upstream.under_way > 0


async def _running(workers: Workers) -> list[psutil.Process]:
    return workers.running()
