"""Where the CPU of an attempt goes: the activity itself, one call after the other, each stage's share of the process.

Run as a process with a stack's environment: ``python -m benchmarks.stages CALLS INSTANCE METHOD…`` writes the
Python's version and for each method an object of milliseconds a call. Nothing else runs in the process, so what its
clock shows is a stage's own; what goes into the sandbox process of the transforms is counted with `transform`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpcore2
import psutil
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from integration_service.activities.execution import pipeline as pipeline_module
from integration_service.activities.execution.answers import Answers
from integration_service.activities.execution.caching import ResponseCache
from integration_service.activities.execution.mapping import Mapping
from integration_service.activities.execution.recording import Recorder
from integration_service.activities.execution.results import Results
from integration_service.activities.execution.sending import Sender
from integration_service.activities.outbound.breaker import Breakers
from integration_service.activities.outbound.transport import Transport
from integration_service.activities.parts import Parts
from integration_service.activities.schemas import Schema
from integration_service.activities.transforms import Transforms
from integration_service.contracts.calls import MethodCall
from integration_service.plugin import IntegrationClientPlugin
from integration_service.settings import Settings, temporal_config
from integration_service.storage.credentials import Credentials
from integration_service.storage.instances import Instances
from integration_service.worker import event_loop

STAGES = ("load", "decrypt", "validate", "transform", "build", "limit", "send", "parse", "cache", "audit", "rest")
"""In the order of a call. `rest` is what holds them together: reading the input, the heartbeat, the result."""
BATCHES = 10
"""Of a method's calls the cheapest tenth is told: whatever disturbs a processor makes the same work dearer. The
methods take turns, so that each has its share of a machine's good moments."""
HTTP = "HTTP client"
"""From the request to the last byte of its answer, and the connection's way back into the client's pool; with the
client's trace, which tells us when a request leaves."""
_SDK = "SDK"
"""What stands for Temporal's worker here, around the activity: not counted."""
_WHERE: tuple[tuple[str, Any, str], ...] = (
    ("load", Instances, "for_call"),
    ("decrypt", Credentials, "open"),
    ("validate", Schema, "check"),
    ("transform", Mapping, "variables"),
    ("transform", Mapping, "data"),
    ("transform", Transforms, "evaluate"),
    ("build", pipeline_module, "_request"),
    ("limit", Sender, "take_place"),
    ("limit", Breakers, "admit"),
    ("limit", Breakers, "note"),
    ("send", Transport, "send"),
    (HTTP, httpcore2.AsyncConnectionPool, "handle_async_request"),
    (HTTP, httpcore2.Response, "aiter_stream"),
    (HTTP, httpcore2.Response, "aclose"),
    ("parse", Answers, "read"),
    ("parse", Results, "finish"),
    ("cache", ResponseCache, "through"),
    ("audit", Recorder, "record"),
)


class Clock:
    """CPU time of this process by stage; a stage within another one is taken out of it."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._open = [_SDK]
        self._at = time.process_time()

    def enter(self, stage: str) -> None:
        self._charge()
        self._open.append(stage)

    def leave(self) -> None:
        self._charge()
        self._open.pop()

    def reset(self) -> None:
        self._charge()
        self.spent.clear()

    def _charge(self) -> None:
        now = time.process_time()
        self.spent[self._open[-1]] += now - self._at  # type: ignore[assignment]
        self._at = now

    def around(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if asyncio.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                self.enter(stage)
                try:
                    return await function(*args, **kwargs)
                finally:
                    self.leave()

            return awaited

        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def iterated(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                step = self.around(stage, _next)
                async with aclosing(function(*args, **kwargs)) as items:
                    with suppress(StopAsyncIteration):
                        while True:
                            yield await step(items)

            return iterated

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            self.enter(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return called


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items)


class _Inner(ActivityInboundInterceptor):
    """The end of the chain: calls the activity."""

    def __init__(self) -> None:
        pass

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        return await input.fn(*input.args)


async def _measure(calls: int, instance: str, methods: list[str]) -> dict[str, dict[str, float]]:
    clock = Clock()
    for stage, owner, name in _WHERE:
        setattr(owner, name, clock.around(stage, getattr(owner, name)))
    settings = Settings.from_environment()
    client = await Client.connect(**temporal_config(), plugins=[IntegrationClientPlugin()])
    parts = Parts.build(settings, task_queue=settings.task_queue)
    batches: dict[str, list[Counter[str]]] = {method: [] for method in methods}
    async with parts.opened():
        for number in range(BATCHES + 1):
            for method in methods:
                clock.reset()
                before = _children_s()
                await _run(parts, clock, client, instance, method, calls // BATCHES)
                if number > 0:  # the first warms up
                    del clock.spent[_SDK]
                    spent = clock.spent.copy()
                    spent["transform"] += _children_s() - before  # type: ignore[assignment]
                    batches[method].append(spent)
    found = {}
    for method in methods:
        cheapest = min(batches[method], key=Counter.total)
        found[method] = {stage: spent * 1000 * BATCHES / calls for stage, spent in cheapest.items()}
    return found


async def _run(parts: Parts, clock: Clock, client: Client, instance: str, method: str, calls: int) -> None:
    converter = PydanticPayloadConverter()
    call = MethodCall(instance_id=instance, method=method, params={"id": 7})
    [payload] = converter.to_payloads([call])
    chain: ActivityInboundInterceptor = _Inner()
    for interceptor in reversed(parts.interceptors):
        chain = interceptor.intercept_activity(chain)
    execute = clock.around("rest", chain.execute_activity)
    for number in range(calls):
        now = datetime.now(UTC)
        running = ActivityEnvironment(client)
        running.payload_converter = converter
        running.info = replace(
            running.info,
            activity_id=str(number),
            activity_type=f"bench.{method}",
            scheduled_time=now,
            current_attempt_scheduled_time=now,
            started_time=now,
            start_to_close_timeout=timedelta(seconds=45),
            workflow_id=f"stages-{method}-{now.timestamp()}",
        )
        wanted = ExecuteActivityInput(parts.methods.run_method, [[RawValue(payload)]], None, {})
        await running.run(execute, wanted)


def _children_s() -> float:
    """CPU time of the sandbox processes: Linux tells it in nanoseconds, all others in hundredths of a second."""
    children = psutil.Process().children(recursive=True)
    if not sys.platform.startswith("linux"):
        return sum(sum(child.cpu_times()[:2]) for child in children)
    spent = [Path(f"/proc/{child.pid}/schedstat").read_text(encoding="ascii").split()[0] for child in children]
    return sum(map(int, spent)) / 1e9


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=event_loop) as runner:
        measured = runner.run(_measure(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
    sys.stdout.write(json.dumps({"python": platform.python_version(), "methods": measured}) + "\n")
