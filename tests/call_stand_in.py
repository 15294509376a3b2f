"""Stands in for a worker's side of a call, where a test is about `ExecuteMethod` alone."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from temporalio import activity
from temporalio.common import RawValue

from integration_service.activities.failures import typed
from integration_service.contracts.calls import Continuation, MethodCall, MethodResult, Park, Parked, ResolvedMethod
from integration_service.contracts.retry import DEFAULT_RETRY
from integration_service.contracts.wire import parse


class CallStandIn:
    """`resolve`, `park` and one method `things.get`.

    `trouble` holds what the next asks of a step raise, in order; `answer` is what the method raises for as long as it
    is set. `asked` counts the asks of each step.
    """

    def __init__(self) -> None:
        self.instance_id = str(uuid.uuid4())
        self.connected = False
        self.answer: Exception | None = None
        self.trouble: dict[str, list[Exception]] = {}
        self.asked: Counter[str] = Counter()
        self.continuations: list[Continuation] = []

    @activity.defn(name="resolve")
    async def resolve(self, call: MethodCall, continuation: Continuation) -> ResolvedMethod:
        await self._ask("resolve")
        return ResolvedMethod(
            instance_id=self.instance_id,
            definition="things",
            definition_version="1.0.0",
            method="get",
            retry=DEFAULT_RETRY,
            timeout_ms=1000,
        )

    @activity.defn(name="park")
    async def park(self, wanted: Park) -> Parked:
        await self._ask("park")
        return Parked(connected=self.connected, generation=1)

    @activity.defn(dynamic=True)
    async def run(self, arguments: Sequence[RawValue]) -> MethodResult:
        converter = activity.payload_converter()
        self.continuations.append(parse(Continuation, converter.from_payload(arguments[1].payload)))
        await self._ask("run")
        async with typed(retry=False):
            if self.answer is not None:
                raise self.answer
        return MethodResult(
            data=None,
            status_code=200,
            attempts=self.continuations[-1].tries_spent + 1,
            duration_ms=1,
            definition="things",
            definition_version="1.0.0",
        )

    @property
    def activities(self) -> list[Callable[..., Any]]:
        return [self.resolve, self.park, self.run]

    async def _ask(self, step: str) -> None:
        self.asked[step] += 1
        async with typed(retry=False):
            if self.trouble.get(step):
                raise self.trouble[step].pop(0)
