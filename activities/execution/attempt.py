"""Who is asking: one attempt of one activity, told apart from Temporal's own words for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio import activity

from integration_service.contracts.calls import Continuation
from integration_service.contracts.errors import Decision, IntegrationError
from integration_service.contracts.names import execution_key

_INSISTS_EVERY = timedelta(milliseconds=250)
Done = TypeVar("Done")
_HEARTBEAT_EVERY = timedelta(seconds=3)
_FALLBACK_TIME = timedelta(seconds=60)
FOR_THE_REST = timedelta(seconds=1)
"""Kept back from an attempt's time for what follows the send."""


@dataclass(frozen=True)
class Attempt:
    """One run of a method activity.

    `number` counts Temporal's attempts, `tries` those of them that spent a try; `parks` says that the caller is
    `ExecuteMethod`, which waits on a durable timer when it is told to.
    """

    execution_key: str
    number: int
    tries: int
    parks: bool
    throttles: int
    reserved: bool
    scheduled_at: datetime
    deadline: datetime
    workflow_id: str | None
    run_id: str | None
    activity_id: str

    @classmethod
    def current(cls, continuation: Continuation | None) -> Attempt:
        """Read from the running activity."""
        info = activity.info()
        # A foreign caller's throttles are counted in heartbeat details, which outlive a raised failure.
        throttles, reserved = _throttles(info.heartbeat_details)
        if continuation is not None:
            key, spent = continuation.execution_key, continuation.tries_spent
            reserved = continuation.reserved and info.attempt == 1
        elif info.in_workflow:
            key = execution_key(info.namespace, str(info.workflow_id), str(info.workflow_run_id), info.activity_id)
            spent = 0
        else:
            key, spent = execution_key(info.activity_id, str(info.activity_run_id)), 0
        return cls(
            execution_key=key,
            number=spent + info.attempt,
            tries=spent + info.attempt - throttles,
            parks=continuation is not None,
            throttles=throttles,
            reserved=reserved,
            scheduled_at=info.scheduled_time,
            deadline=info.started_time + (info.start_to_close_timeout or _FALLBACK_TIME),
            workflow_id=info.workflow_id,
            run_id=info.workflow_run_id or info.activity_run_id,
            activity_id=info.activity_id,
        )

    def note_throttle(self, *, reserved: bool) -> None:
        """Remember, for the next attempt of a foreign caller, that this one spent no try."""
        activity.heartbeat(self.throttles + 1, reserved)

    def beat(self) -> None:
        """Tell Temporal that the call is alive; a place that was reserved is taken by now."""
        activity.heartbeat(self.throttles, False)

    async def insist(self, work: Callable[[], Awaitable[Done]]) -> Done:
        """Do what is left once the upstream has answered. An outage of ours is waited out here for as long as the
        attempt lasts: a request is not repeated because something of ours was down."""
        while True:
            try:
                return await work()
            except IntegrationError as error:
                if error.decision is not Decision.WAIT or self.time_left() < 2 * FOR_THE_REST:
                    raise
            await asyncio.sleep(_INSISTS_EVERY.total_seconds())

    def time_left(self) -> timedelta:
        """How long Temporal still waits for this attempt."""
        return self.deadline - datetime.now(UTC)


def _throttles(details: Sequence[Any]) -> tuple[int, bool]:
    match list(details):
        case [int(throttles), bool(reserved)]:
            return throttles, reserved
    return 0, False


@contextmanager
def heartbeats(attempt: Attempt) -> Iterator[None]:
    """Beat while a call lasts, so that a dead worker is noticed in seconds; a short call never beats."""
    loop = asyncio.get_running_loop()
    following: asyncio.TimerHandle

    def beat() -> None:
        nonlocal following
        following = loop.call_later(_HEARTBEAT_EVERY.total_seconds(), beat)
        attempt.beat()

    if attempt.reserved and not attempt.parks:
        attempt.beat()  # the place is taken now, and not again by the next attempt
    following = loop.call_later(_HEARTBEAT_EVERY.total_seconds(), beat)
    try:
        yield
    finally:
        following.cancel()
