"""A receiver that fails half of the time and restarts, and workers that are killed: every event arrives, in order."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from integration_service.activities.webhooks import new_secret
from integration_service.contracts.events import EventDraft, EventType, NewSubscription
from integration_service.contracts.wire import JsonObject, parse
from integration_service.storage.outbox import Outbox
from integration_service.storage.subscriptions import Subscriptions
from integration_service.storage.vault.keyring import Keyring
from tests.soak.workers import Workers
from tests.waiting import eventually
from tests.webhook_verifier import verify
from tests.world import World, definition_file

pytestmark = pytest.mark.slow


_MOST_IN_A_ROW = 6
"""The same event: the pauses double, so that one that is refused twelve times takes over an hour."""


class Receiver:
    """Answers 500 to half of what comes; what it has not verified it does not take."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._random = random.Random(5)
        self.accepted: list[JsonObject] = []
        self.refused = 0
        self._in_a_row: Counter[str] = Counter()

    @property
    def seen(self) -> int:
        return len(self.accepted) + self.refused

    async def answer(self, request: Request) -> Response:
        event: Any = verify(await request.body(), dict(request.headers), self._secret, now=datetime.now(UTC))
        if self._random.random() < 0.5 and self._in_a_row[event["id"]] < _MOST_IN_A_ROW:
            self.refused += 1
            self._in_a_row[event["id"]] += 1
            return Response("trouble", 500)
        self.accepted.append(event)
        return Response(status_code=204)


async def test_every_event_arrives_in_order_and_signed(
    world: World, workers: Workers, keyring: Keyring, name: str, full: bool, measured: Any
) -> None:
    secret, instances, rounds, restarts = new_secret(), 50 if full else 10, 10 if full else 2, 20 if full else 3
    receiver = Receiver(secret)
    subscriptions = Subscriptions(world.database, keyring)
    await world.publish(definition_file(name))
    started = asyncio.get_running_loop().time()
    async with _Restarting(receiver) as server:
        wanted = {"webhook": {"url": server.url}, "definition": name}
        subscription = await subscriptions.add(parse(NewSubscription, wanted), secret=secret)
        coming = asyncio.create_task(_come_and_go(world, name, instances, rounds))
        for number in range(restarts):
            await server.restart()
            if number % 3 == 2:
                workers.kill()
        await coming

        async def all_settled() -> bool:
            row = await world.database.one(
                """SELECT count(*) FILTER (WHERE state <> 'DELIVERED') AS owed, count(*) AS every
                     FROM integrations.deliveries WHERE subscription_id = %(id)s""",
                {"id": subscription.id},
            )
            return row is not None and row["every"] > 0 and row["owed"] == 0

        await eventually(all_settled, within_s=3600 if full else 240)
    took = asyncio.get_running_loop().time() - started
    written = await world.database.all(
        "SELECT id, subject, sequence FROM integrations.events WHERE definition = %(name)s", {"name": name}
    )
    await subscriptions.remove(subscription.id)
    assert {event["id"] for event in receiver.accepted} == {str(row["id"]) for row in written}
    assert len(written) == instances * (2 + 4 * rounds)
    orders: dict[str, list[int]] = defaultdict(list)
    for event in receiver.accepted:
        if int(event["sequence"]) not in orders[event["subject"]]:  # at least once: one that came again is no new one
            orders[event["subject"]].append(int(event["sequence"]))
    for subject, order in orders.items():
        assert order == list(range(1, 3 + 4 * rounds)), subject
    again = len(receiver.accepted) - len(written)
    measured(
        f"{len(written)} events in {took:.0f} s, {receiver.refused} refused, {again} came again, {restarts} restarts"
    )


async def _come_and_go(world: World, name: str, instances: int, rounds: int) -> None:
    """Every instance is connected, then disconnected and connected again."""

    async def one() -> None:
        instance = await world.connect(name, name=f"i {uuid.uuid4().hex}")
        for _ in range(rounds):
            await world.connection(instance).update("disconnect")
            await world.connection(instance).update("reconnect")

    await asyncio.gather(*(one() for _ in range(instances)))


class _Restarting:
    """The receiver behind a real server that goes away with its connections and comes back on the same port."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._app = Starlette(routes=[Route("/{path:path}", receiver.answer, methods=["POST"])])
        self._port = 0

    async def __aenter__(self) -> _Restarting:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/hooks"

    async def restart(self) -> None:
        """Break whatever is under way, refuse connections for a second, listen again."""
        seen = self._receiver.seen

        async def more_came() -> bool:
            return self._receiver.seen >= seen + 3

        await eventually(more_came, within_s=60)
        await self._stop()
        await asyncio.sleep(1)  # how long it is away, not a wait for anything
        await self._start()

    async def _start(self) -> None:
        config = uvicorn.Config(self._app, host="127.0.0.1", port=self._port, log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.005)
        self._port = self._server.servers[0].sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        await self._task


async def test_how_many_a_second(world: World, keyring: Keyring, measured: Any) -> None:
    """Events without order, to one receiver that takes them: what delivering costs by itself."""
    secret, wanted = new_secret(), 1_000
    arrived = 0

    async def answer(request: Request) -> Response:
        nonlocal arrived
        arrived += 1
        return Response(status_code=204)

    subscriptions, outbox = Subscriptions(world.database, keyring), Outbox(world.database)
    world.upstream.handler = answer
    asked = {"webhook": {"url": world.upstream.url}, "eventTypes": ["integration.audit.alert"]}
    subscription = await subscriptions.add(parse(NewSubscription, asked), secret=secret)
    started = time.monotonic()
    for begin in range(0, wanted, 20):
        drafts = [EventDraft(EventType.AUDIT_ALERT, {"number": begin + more}) for more in range(20)]
        await asyncio.gather(*(outbox.publish(draft, subject="soak") for draft in drafts))
    written = time.monotonic()

    async def all_came() -> bool:
        return arrived >= wanted

    await eventually(all_came, within_s=120)
    ended = time.monotonic()
    await subscriptions.remove(subscription.id)
    measured(
        f"{wanted / (written - started):.0f} written a second, {wanted / (ended - started):.0f} delivered a second"
    )
