"""`DeliverEvents` on the real stack: webhooks and signals arrive, trouble is waited out, who is gone is disabled."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from temporalio import workflow
from temporalio.client import WorkflowHandle
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker

from integration_service.activities.webhooks import new_secret
from integration_service.contracts.events import (
    DELIVER_EVENTS,
    EventType,
    NewSubscription,
    Subscription,
    deliver_events_workflow_id,
)
from integration_service.contracts.names import TASK_QUEUE, control_queue
from integration_service.contracts.wire import JsonObject, parse
from integration_service.plugin import IntegrationPlugin
from integration_service.storage.deliveries import Deliveries, ReplayFilter
from integration_service.storage.subscriptions import Subscriptions
from integration_service.storage.vault.keyring import Keyring
from tests.upstream import Upstream, json_answer
from tests.waiting import eventually
from tests.webhook_verifier import verify
from tests.world import World, definition_file

_ORDER = [EventType.STATUS, EventType.CONNECTED, EventType.STATUS, EventType.DISCONNECTED]


@pytest.fixture
async def receiver() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def subscribe(world: World, keyring: Keyring, name: str) -> AsyncIterator[Callable[..., Any]]:
    """Subscribes to the test's own definition; forgotten after the test."""
    subscriptions, made = Subscriptions(world.database, keyring), []

    async def add(secret: str | None = None, **wanted: Any) -> Subscription:
        found = await subscriptions.add(parse(NewSubscription, {"definition": name, **wanted}), secret=secret)
        made.append(found)
        return found

    yield add
    for one in made:
        await subscriptions.remove(one.id)


async def _come_and_go(world: World, name: str) -> JsonObject:
    """An instance that is connected and disconnected: four events in order."""
    instance = await world.instance(definition_file(name))
    await world.connection(instance).update("disconnect")
    return instance


async def test_a_webhook_hears_signed_events_in_order_each_until_it_arrived(
    world: World, receiver: Upstream, subscribe: Any, name: str
) -> None:
    secret = new_secret()
    receiver.answers = [
        Response("busy", 500),
        json_answer({}, 503, Retry_After="1"),
        Response(status_code=204),
    ]
    await subscribe(secret, webhook={"url": f"{receiver.url}/hooks?team=a"})
    instance = await _come_and_go(world, name)
    await eventually(_count(receiver, 6))
    events = [verify(seen.body, seen.headers, secret, now=datetime.now(UTC)) for seen in receiver.seen]
    assert [event["type"] for event in events] == [_ORDER[0], _ORDER[0], *_ORDER]
    assert len({event["id"] for event in events[:3]}) == 1
    assert [seen.headers["webhook-id"] for seen in receiver.seen] == [event["id"] for event in events]
    assert {event["subject"] for event in events} == {instance["id"]}
    assert receiver.gaps()[1] >= 0.9  # Retry-After
    assert (receiver.seen[0].method, receiver.seen[0].path, receiver.seen[0].query) == ("POST", "/hooks", "team=a")


def _count(receiver: Upstream, wanted: int) -> Callable[[], Any]:
    async def look() -> bool:
        return len(receiver.seen) >= wanted

    return look


async def test_one_that_is_idle_delivers_at_once(world: World, receiver: Upstream, subscribe: Any, name: str) -> None:
    """It looks every five seconds; what is queued wakes it."""
    instance = await world.instance(definition_file(name))
    await subscribe(new_secret(), webhook={"url": receiver.url})
    waits = []
    for number, update in enumerate(("disconnect", "reconnect", "disconnect"), 1):
        await asyncio.sleep(1)  # nothing happens, which is what makes it idle
        await world.connection(instance).update(update)
        asked = time.monotonic()
        await eventually(_count(receiver, 2 * number))
        waits.append(time.monotonic() - asked)
    assert sorted(waits)[1] < 1


async def test_410_disables_the_subscription_and_a_replay_brings_the_rest(
    world: World, receiver: Upstream, subscribe: Any, name: str, keyring: Keyring
) -> None:
    receiver.answers = [Response(status_code=410), Response()]
    subscription = await subscribe(new_secret(), webhook={"url": receiver.url})
    await _come_and_go(world, name)
    subscriptions, deliveries = Subscriptions(world.database, keyring), Deliveries(world.database)

    async def disabled() -> bool:
        return not (await subscriptions.get(subscription.id)).enabled

    await eventually(disabled)
    assert len(receiver.seen) == 1
    assert {row["reason"] for row in await deliveries.dead(limit=9, subscription_id=subscription.id)} == {"HTTP_410"}
    await subscriptions.enable(subscription.id)
    assert await deliveries.replay(ReplayFilter(subscription_id=subscription.id)) == 4
    await eventually(_count(receiver, 5))
    assert [json.loads(seen.body)["type"] for seen in receiver.seen[1:]] == _ORDER


async def test_a_receiver_that_hangs_does_not_hold_up_another(
    world: World, receiver: Upstream, subscribe: Any, name: str
) -> None:
    let_go = asyncio.Event()

    async def answer(request: Request) -> Response:
        if request.url.path == "/slow":
            await let_go.wait()
        return JSONResponse({})

    receiver.handler = answer
    for path in ("slow", "quick"):
        await subscribe(new_secret(), webhook={"url": f"{receiver.url}/{path}"})
    await _come_and_go(world, name)

    async def quick_has_all() -> bool:
        return [seen.path for seen in receiver.seen].count("/quick") == 4

    await eventually(quick_has_all, within_s=10)
    assert [seen.path for seen in receiver.seen].count("/slow") == 1
    let_go.set()


@workflow.defn
class Listener:
    """Another team's workflow, which subscribes."""

    def __init__(self) -> None:
        self._heard: list[dict[str, Any]] = []

    @workflow.run
    async def run(self, wanted: int) -> list[dict[str, Any]]:
        await workflow.wait_condition(lambda: len(self._heard) >= wanted)
        return self._heard

    @workflow.signal
    def integration_event(self, event: dict[str, Any]) -> None:
        self._heard.append(event)


async def test_a_workflow_hears_by_signal_and_is_unsubscribed_when_it_is_gone(
    world: World, subscribe: Any, name: str, keyring: Keyring
) -> None:
    queue = f"listeners-{name}"
    async with Worker(
        world.temporal, task_queue=queue, workflows=[Listener], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        listener = await world.temporal.start_workflow(Listener.run, 4, id=queue, task_queue=queue)
        subscription = await subscribe(workflow={"workflowId": queue, "signalName": "integration_event"})
        instance = await _come_and_go(world, name)
        heard = await asyncio.wait_for(listener.result(), 30)
    assert [event["type"] for event in heard] == _ORDER
    assert [event["sequence"] for event in heard] == sorted(event["sequence"] for event in heard)
    await world.connection(instance).update("reconnect")
    subscriptions = Subscriptions(world.database, keyring)

    async def disabled() -> str | None:
        return (await subscriptions.get(subscription.id)).disabled_reason

    assert await eventually(disabled) == "TEMPORAL_NOT_FOUND"


async def test_addresses_that_the_policy_denies_are_not_called(world: World, subscribe: Any, name: str) -> None:
    subscription = await subscribe(new_secret(), webhook={"url": "http://169.254.169.254/latest/meta-data"})
    await _come_and_go(world, name)

    async def refused() -> Any:
        return await world.database.one(
            "SELECT last_error FROM integrations.deliveries WHERE subscription_id = %(id)s AND failures > 0",
            {"id": subscription.id},
        )

    assert (await eventually(refused))["last_error"] == "EGRESS_DENIED"


async def test_no_body_of_an_answer_and_no_secret_is_kept(
    world: World, receiver: Upstream, subscribe: Any, name: str
) -> None:
    secret = new_secret()
    receiver.answers = [Response("Planted-Body-5", 500), Response("Planted-Body-5", 200)]
    await subscribe(secret, webhook={"url": receiver.url})
    await _come_and_go(world, name)
    await eventually(_count(receiver, 5))
    for table in ("deliveries", "subscriptions", "events"):
        rows = await world.database.all(f"SELECT to_jsonb(t)::text AS row FROM integrations.{table} t")
        assert not any("Planted-Body" in row["row"] or secret[6:] in row["row"] for row in rows)
    history = await world.temporal.get_workflow_handle(deliver_events_workflow_id(TASK_QUEUE)).fetch_history()
    assert "Planted-Body" not in history.to_json()


async def test_it_runs_once_however_many_workers_start_it(world: World) -> None:
    handle = world.temporal.get_workflow_handle(deliver_events_workflow_id(TASK_QUEUE))
    described = await handle.describe()
    assert (described.workflow_type, described.task_queue) == (DELIVER_EVENTS, control_queue(TASK_QUEUE))
    # Idle or busy, a shift is one activity.
    assert described.history_length < 50


async def _short_shifts(world: World, shift_ms: int) -> WorkflowHandle[Any, Any]:
    return await world.temporal.start_workflow(
        DELIVER_EVENTS,
        {"shiftMs": shift_ms},
        id=f"deliver-{uuid.uuid4()}",
        task_queue=control_queue(TASK_QUEUE),
    )


async def test_a_second_one_does_no_harm_and_its_history_replays(
    world: World, receiver: Upstream, subscribe: Any, name: str
) -> None:
    receiver.answers = [Response()]
    await subscribe(new_secret(), webhook={"url": receiver.url})
    handle = await _short_shifts(world, 200)
    await _come_and_go(world, name)

    async def some_shifts() -> bool:
        return (await handle.describe()).history_length > 22

    await eventually(some_shifts)
    await handle.terminate()
    await eventually(_count(receiver, 4))
    assert [json.loads(seen.body)["type"] for seen in receiver.seen] == _ORDER
    history = await handle.fetch_history()
    await Replayer(workflows=[], plugins=[IntegrationPlugin()]).replay_workflow(history)
    if folder := os.environ.get("STORE_HISTORIES"):
        stored = {"workflowId": handle.id, "history": history.to_json_dict()}
        (Path(folder) / "DeliverEvents-shifts.json").write_text(json.dumps(stored, indent=1) + "\n")


async def test_an_input_that_is_none_fails_it(world: World) -> None:
    handle = await _short_shifts(world, 0)
    with pytest.raises(Exception, match="execution failed"):
        await asyncio.wait_for(handle.result(), 20)


@pytest.mark.slow
async def test_a_run_hands_on_before_its_history_is_long(world: World) -> None:
    handle = await _short_shifts(world, 1)
    first = handle.first_execution_run_id

    async def next_run() -> bool:
        return (await world.temporal.get_workflow_handle(handle.id).describe()).run_id != first

    await eventually(next_run, within_s=120)
    await world.temporal.get_workflow_handle(handle.id).terminate()
    history = await world.temporal.get_workflow_handle(handle.id, run_id=first).fetch_history()
    assert len(history.events) < 1_100
    await Replayer(workflows=[], plugins=[IntegrationPlugin()]).replay_workflow(history)
