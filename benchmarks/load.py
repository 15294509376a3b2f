"""The load generator, as a process: reads one `Slice` a line, runs it, writes one `Measured` a line."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.client import Client

from benchmarks.tuning import TUNED_CLIENT
from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.names import TASK_QUEUE
from integration_service.contracts.wire import JsonObject

Call = Callable[[], Awaitable[object]]
_TIMEOUT = timedelta(seconds=45)


@dataclass(frozen=True)
class Slice:
    """So many callers, each with one call after another, for so long or for so many calls each."""

    kind: str
    """`method`, `bare`, `bare-default` (the SDK's converter), and the two as standalone activities."""
    queue: str = TASK_QUEUE
    callers: int = 1
    seconds: float = 1
    calls_each: int | None = None
    method: str = "get"
    activity: str = ""
    instances: tuple[str, ...] = ()
    """One of them is drawn for each call."""
    url: str = ""


@dataclass(frozen=True)
class Measured:
    """What came of a slice."""

    calls: int
    seconds: float
    failed: int
    latencies_ms: list[float] = field(repr=False)

    @property
    def per_second(self) -> float:
        return self.calls / self.seconds

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return percentile(self.latencies_ms, share)


def percentile(values: list[float], share: float) -> float:
    """The value that so many are not above; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


class Load:
    """Runs slices against one Temporal."""

    def __init__(self, plain: Client, tuned: Client) -> None:
        self._plain = plain
        self._tuned = tuned
        self._services: dict[str, Integrations] = {}
        self._random = random.Random(1)  # noqa: S311 - no secret

    async def run(self, wanted: Slice) -> Measured:
        call = self._call(wanted)
        latencies: list[float] = []
        failures: list[str] = []
        began = time.monotonic()

        async def caller() -> None:
            done = 0
            while (
                (time.monotonic() - began < wanted.seconds) if wanted.calls_each is None else done < wanted.calls_each
            ):
                at = time.monotonic()
                try:
                    await call()
                except Exception as error:
                    failures.append(f"{type(error).__name__}: {error}")
                else:
                    latencies.append((time.monotonic() - at) * 1000)
                done += 1

        await asyncio.gather(*(caller() for _ in range(wanted.callers)))
        for failure in failures[:3]:
            sys.stderr.write(f"load: {failure}\n")
        return Measured(len(latencies), time.monotonic() - began, len(failures), latencies)

    def _call(self, wanted: Slice) -> Call:
        match wanted.kind:
            case "method":
                service = self._service(wanted)
                return lambda: service.call(MethodCall(method=wanted.method, **self._drawn(wanted)))
            case "method-alone":
                return lambda: self._alone(wanted, self._drawn(wanted))
            case "bare-alone":
                return lambda: self._alone(wanted, wanted.url)
        client = self._plain if wanted.kind == "bare-default" else self._tuned
        return lambda: client.execute_workflow(
            "BareCall", wanted.url, id=f"bare:{uuid.uuid4()}", task_queue=wanted.queue, result_type=dict
        )

    def _service(self, wanted: Slice) -> Integrations:
        """One client for all slices of one instance, as a service has: what it learned of a method holds. Of many
        instances it would know a share that falls with their number, so there each slice begins anew."""
        service = Integrations(self._tuned, task_queue=wanted.queue)
        return service if len(wanted.instances) > 1 else self._services.setdefault(wanted.queue, service)

    def _drawn(self, wanted: Slice) -> dict[str, Any]:
        return {"instance_id": self._random.choice(wanted.instances), "params": {"id": 7}}

    async def _alone(self, wanted: Slice, given: object) -> JsonObject:
        argument = MethodCall(**given).to_wire() if isinstance(given, dict) else given
        answer: JsonObject = await self._tuned.execute_activity(
            wanted.activity,
            argument,
            id=str(uuid.uuid4()),
            task_queue=wanted.queue,
            result_type=dict,
            start_to_close_timeout=_TIMEOUT,
        )
        return answer


async def _serve(address: str) -> None:
    load = Load(await Client.connect(address), await Client.connect(address, **TUNED_CLIENT))
    while line := await asyncio.to_thread(sys.stdin.readline):
        measured = await load.run(Slice(**json.loads(line)))
        sys.stdout.write(json.dumps(asdict(measured)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
