"""Delivers events: claims what is due, posts or signals it, settles it; one long shift at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from integration_service.activities.failures import typed
from integration_service.activities.outbound.transport import Transport
from integration_service.activities.webhooks import Refusal, refusal, webhook_request
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.events import DELIVER_DUE_EVENTS, DeliverEventsInput, ShiftReport
from integration_service.contracts.retry import RetryConfig
from integration_service.storage.deliveries import Deliveries, Delivery
from integration_service.storage.delivery_news import DeliveryNews
from integration_service.storage.outbox import Outbox
from integration_service.storage.subscriptions import Subscriptions

BACKOFF = RetryConfig(max_retries=0, backoff_multiplier=2, initial_delay_ms=1_000, max_delay_ms=4 * 3_600_000)
"""Between two tries: 1 s, 2 s, … 4 h, each jittered; over three days that is about thirty."""
_AT_ONCE = 50
_EACH_AT_ONCE = 10
"""Of one subscription: a receiver that is slow holds no more places than that."""
_SEND_WITHIN = timedelta(seconds=15)
_LEASE = timedelta(seconds=45)
"""Longer than a delivery can take, so that nobody else claims it meanwhile."""
_ANSWER_BYTES = 64 * 1024
_BUSY_LOOK = timedelta(milliseconds=500)
_SHORTEST_LOOK = timedelta(milliseconds=50)
_IDLE_LOOK = timedelta(seconds=5)
"""News wakes it before that, where they can be heard."""
_GATHERING = timedelta(milliseconds=20)
"""From the first news to the next claim: what comes meanwhile is claimed with it."""
_EXPIRING_EVERY = timedelta(minutes=1)
_PRUNE_EVERY = timedelta(minutes=10)


class EventActivities:
    """The activity of `DeliverEvents`."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        deliveries: Deliveries,
        subscriptions: Subscriptions,
        news: DeliveryNews,
        transport: Transport,
        backoff: RetryConfig = BACKOFF,
    ) -> None:
        self._outbox = outbox
        self._deliveries = deliveries
        self._subscriptions = subscriptions
        self._news = news
        self._transport = transport
        self._backoff = backoff

    @activity.defn(name=DELIVER_DUE_EVENTS)
    async def deliver(self, wanted: DeliverEventsInput) -> ShiftReport:
        """Deliver what is due, as long as the shift lasts or until the worker stops.

        A worker that dies leaves leases that lapse: what it had in hand is delivered by the next, perhaps again.
        """
        async with typed():
            return await _Shift(self, wanted.shift).work()

    async def attempt(self, delivery: Delivery) -> Refusal | None:
        """Send one event; None when it arrived. Raises IntegrationError when our own side fails."""
        if delivery.webhook_url is None:
            return await self._signal(delivery)
        signing = await self._subscriptions.secrets(delivery.subscription_id)
        if not signing:
            raise IntegrationError(ErrorCode.KEY_UNAVAILABLE, "the subscription has no secret to sign with")
        request = webhook_request(delivery.webhook_url, delivery.event, signing=signing, at=datetime.now(UTC))
        try:
            response = await self._transport.send(request, within=_SEND_WITHIN, max_bytes=_ANSWER_BYTES)
        except IntegrationError as error:
            return Refusal(error.code)
        return refusal(response, now=datetime.now(UTC))

    async def _signal(self, delivery: Delivery) -> Refusal | None:
        client: Client = activity.client()
        handle = client.get_workflow_handle(delivery.workflow_id or "")
        try:
            await handle.signal(delivery.signal_name or "", delivery.event.to_wire(), rpc_timeout=_SEND_WITHIN)
        except RPCError as error:
            return Refusal(f"TEMPORAL_{error.status.name}", for_good=error.status is RPCStatusCode.NOT_FOUND)
        return None

    async def settle(self, delivery: Delivery, refused: Refusal | None) -> Counter[str]:
        """Note what became of it; returns what to count."""
        if refused is None:
            await self._deliveries.delivered(delivery)
            return Counter(delivered=1)
        if refused.for_good:
            return Counter(failed=1, dead=await self._deliveries.gone(delivery, refused.reason))
        pause = self._backoff.delay_after(delivery.failures + 1) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        if refused.wait is not None:
            pause = max(pause, refused.wait)
        dead = await self._deliveries.failed(delivery, refused.reason, again_in=pause)
        return Counter(failed=1, dead=int(dead))

    async def claim(self, limit: int, *, passing_over: frozenset[str]) -> list[Delivery]:
        return await self._deliveries.claim(limit=limit, each=_EACH_AT_ONCE, lease=_LEASE, passing_over=passing_over)

    async def next_due(self) -> timedelta | None:
        return await self._deliveries.next_due()

    @property
    def news(self) -> DeliveryNews:
        return self._news

    @property
    def chores(self) -> list[tuple[timedelta, Callable[[], Awaitable[int]]]]:
        """What is done beside delivering, and how often."""
        return [(_EXPIRING_EVERY, self._outbox.announce_expiring), (_PRUNE_EVERY, self._outbox.prune)]


class _Shift:
    """One run of the activity."""

    def __init__(self, events: EventActivities, length: timedelta) -> None:
        self._events = events
        self._until = time.monotonic() + length.total_seconds()
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._counts: Counter[str] = Counter()
        self._chores = events.chores
        self._next_chores = [0.0 for _ in self._chores]

    async def work(self) -> ShiftReport:
        listening = asyncio.create_task(self._events.news.listen())
        try:
            while time.monotonic() < self._until and not activity.is_worker_shutdown():
                activity.heartbeat()
                await self._do_chores()
                claimed = await self._claim()
                for delivery in claimed:
                    task = asyncio.create_task(self._deliver(delivery))
                    self._tasks[task] = delivery.subscription_id
                    task.add_done_callback(lambda done: self._tasks.pop(done, None))
                await self._pause(_BUSY_LOOK if claimed else await self._idle())
            while self._tasks:
                activity.heartbeat()
                await asyncio.wait(list(self._tasks), timeout=1)
        finally:
            listening.cancel()
            for task in list(self._tasks):
                task.cancel()
        return ShiftReport(**{name: self._counts[name] for name in ShiftReport.model_fields})

    async def _claim(self) -> list[Delivery]:
        in_hand = Counter(self._tasks.values())
        busy = frozenset(name for name, count in in_hand.items() if count >= _EACH_AT_ONCE)
        free = _AT_ONCE - len(self._tasks)
        return await self._events.claim(free, passing_over=busy) if free > 0 else []

    async def _idle(self) -> timedelta:
        due = await self._events.next_due()
        return _IDLE_LOOK if due is None else min(max(due, _SHORTEST_LOOK), _IDLE_LOOK)

    async def _pause(self, longest: timedelta) -> None:
        """Until something was queued, or a delivery has ended, which may make the next one due, or the worker stops."""
        left = max(0.0, min(longest.total_seconds(), self._until - time.monotonic()))
        stopping = asyncio.create_task(activity.wait_for_worker_shutdown())
        # While there is no place for more, news is none.
        news = [asyncio.create_task(self._events.news.wait())] if len(self._tasks) < _AT_ONCE else []
        try:
            await asyncio.wait([stopping, *news, *self._tasks], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if any(task.done() for task in news):
                await asyncio.sleep(min(left, _GATHERING.total_seconds()))
        finally:
            for task in (stopping, *news):
                task.cancel()

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            refused = await self._events.attempt(delivery)
        except IntegrationError as error:
            refused = Refusal(error.code)  # a key that is away, a database that is down: tried again like the rest
        except Exception as error:
            activity.logger.error("a delivery met an unexpected %s", type(error).__name__)
            refused = Refusal("UNEXPECTED")
        try:
            self._counts += await self._events.settle(delivery, refused)
        except IntegrationError as error:
            # The lease lapses and it is delivered again.
            activity.logger.warning("a delivery could not be settled: %s", error.code)

    async def _do_chores(self) -> None:
        for number, (every, chore) in enumerate(self._chores):
            if time.monotonic() >= self._next_chores[number]:
                self._next_chores[number] = time.monotonic() + every.total_seconds()
                await chore()
