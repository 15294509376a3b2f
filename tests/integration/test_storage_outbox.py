"""The outbox in a Postgres of its own, where no worker delivers: written with what happened, claimed, settled."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from integration_service.activities.webhooks import new_secret
from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.definitions import DefinitionFile, IntegrationDefinition
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.events import EventDraft, EventType, NewSubscription, Subscription
from integration_service.contracts.instances import (
    ConnectInstanceInput,
    InstanceError,
    IntegrationInstance,
    IntegrationInstanceStatus,
)
from integration_service.contracts.wire import parse
from integration_service.devstack.stack import Stack
from integration_service.storage.audit import Execution
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.deliveries import Deliveries, Delivery, ReplayFilter
from integration_service.storage.instances import Instances
from integration_service.storage.migrations import migrate
from integration_service.storage.outbox import Outbox, method_events
from integration_service.storage.subscriptions import Subscriptions
from integration_service.storage.vault.keyring import Keyring
from tests.world import definition_file

Status = IntegrationInstanceStatus
_LEASE = timedelta(seconds=30)


@pytest.fixture(scope="module")
async def own(stack: Stack) -> AsyncIterator[Database]:
    """A database of this module's own, at the newest version."""
    url = urlsplit(stack.ready.database)
    kept = json.loads((Path(stack.environment["INTEGRATIONS_KEYRING"]).parent / "database.json").read_text())
    name = f"outbox_{uuid.uuid4().hex[:12]}"
    async with await psycopg.AsyncConnection.connect(
        host=url.hostname,
        port=url.port,
        user="postgres",
        password=kept["superuser"],
        dbname="postgres",
        autocommit=True,
    ) as connection:
        await connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(url.username or ""))
        )
    own_url = urlunsplit(url._replace(path=f"/{name}"))
    await asyncio.to_thread(migrate, own_url)
    async with Database(own_url) as database:
        yield database


@dataclass
class Place:
    """One definition, its instances, and who subscribes to them."""

    database: Database
    keyring: Keyring
    definition: IntegrationDefinition

    @property
    def instances(self) -> Instances:
        return Instances(self.database)

    @property
    def deliveries(self) -> Deliveries:
        return Deliveries(self.database)

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.database)

    async def add(self, scope: str = "global") -> IntegrationInstance:
        wanted = ConnectInstanceInput(
            instance_id=str(uuid.uuid4()),
            scope=scope,
            definition=self.definition.name,
            name=f"i {uuid.uuid4().hex}",
        )
        return await self.instances.add(wanted, self.definition)

    async def to(self, instance: IntegrationInstance, status: Status, code: str | None = None) -> IntegrationInstance:
        return await self.instances.update(
            instance,
            status=status,
            error=InstanceError(message="seen by nobody", code=code) if code else None,
            config=instance.config,
            definition_id=instance.integration_definition_id,
        )

    async def subscribe(self, *types: str, **more: Any) -> Subscription:
        wanted = {"webhook": {"url": "https://receiver.example/h"}, "eventTypes": list(types) or ["*"], **more}
        if "definition" not in more:
            wanted["definition"] = self.definition.name
        return await Subscriptions(self.database, self.keyring).add(
            parse(NewSubscription, wanted), secret=new_secret() if wanted["webhook"] else None
        )

    async def claim(self, subscription: Subscription, *, limit: int = 100, lease: timedelta = _LEASE) -> list[Delivery]:
        others = frozenset(
            one.id for one in await Subscriptions(self.database, self.keyring).list() if one.id != subscription.id
        )
        return await self.deliveries.claim(limit=limit, each=limit, lease=lease, passing_over=others)

    async def told(self, instance: IntegrationInstance) -> list[tuple[str, dict[str, Any]]]:
        found = await self.outbox.tail(limit=100, instance_id=instance.id)
        return [(event.type, event.data) for event in found]


@pytest.fixture
async def place(own: Database, keyring: Keyring, name: str) -> Place:
    await own.one("DELETE FROM integrations.subscriptions", {})
    definition = await Definitions(own).apply(parse(DefinitionFile, definition_file(name)), publish=True)
    return Place(own, keyring, definition)


async def test_a_change_of_status_is_told_by_the_write_itself(place: Place) -> None:
    added = await place.add()
    connected = await place.to(added, Status.CONNECTED)
    await place.to(connected, Status.AUTH_ERROR, "REAUTH_REQUIRED")
    about = {"instanceId": added.id, "scope": "global", "definition": place.definition.name}
    assert await place.told(added) == [
        (EventType.STATUS, {**about, "previous": "PENDING_CONFIGURATION", "current": "CONNECTED"}),
        (EventType.CONNECTED, about),
        (EventType.STATUS, {**about, "previous": "CONNECTED", "current": "AUTH_ERROR", "reason": "REAUTH_REQUIRED"}),
        (EventType.AUTH_FAILED, {**about, "reason": "REAUTH_REQUIRED"}),
    ]
    events = await place.outbox.tail(limit=10, instance_id=added.id)
    assert [int(event.sequence or 0) for event in events] == [1, 2, 3, 4]
    assert {event.subject for event in events} == {added.id}


async def test_a_write_that_loses_or_changes_no_status_tells_nothing(place: Place) -> None:
    added = await place.add()
    written = await place.to(added, added.status)
    with pytest.raises(IntegrationError) as conflict:
        await place.to(added, Status.CONNECTED)
    assert conflict.value.code == ErrorCode.VERSION_CONFLICT
    assert await place.told(written) == []


async def test_deleting_what_was_connected_tells_that_it_is_disconnected(place: Place) -> None:
    connected = await place.to(await place.add(), Status.CONNECTED)
    never = await place.add()
    for instance in (connected, never):
        await place.instances.delete(instance.id)
    assert [kind for kind, _ in await place.told(connected)][-1] == EventType.DISCONNECTED
    assert (await place.told(connected))[-1][1]["reason"] == "DELETED"
    assert await place.told(never) == []


async def test_only_a_renewal_tells_that_a_credential_was_refreshed(place: Place) -> None:
    instance = await place.add()
    credentials = Credentials(place.database, place.keyring)
    token = {"accessToken": "Planted-Token-1", "tokenType": "Bearer", "expiresAt": "2030-01-01T00:00:00.000Z"}
    payload = parse_credential(json.dumps({"type": "oauth2", "oauth2": token}).encode())
    given = {"instance_id": instance.id, "scope": "global", "payload": payload, "renewable": True}
    await credentials.store(**given)
    assert await place.told(instance) == []
    await credentials.store(**given, renewal=True)
    with pytest.raises(IntegrationError):
        await credentials.store(**given, renewal=True, expected=1)
    [(kind, data)] = await place.told(instance)
    assert kind == EventType.CREDENTIAL_REFRESHED
    assert (data["generation"], data["expiresAt"]) == (2, "2030-01-01T00:00:00.000Z")
    assert "Planted" not in str(await place.outbox.tail(limit=1000))


async def test_an_end_that_nothing_puts_off_is_told_once_a_generation(place: Place) -> None:
    credentials = Credentials(place.database, place.keyring)
    soon = datetime.now(UTC) + timedelta(hours=23)
    ends = {"soon": (soon, False), "renewed": (soon, True), "later": (soon + timedelta(hours=2), False)}
    instances = {}
    for name, (expires_at, renewable) in ends.items():
        instances[name] = await place.add()
        jwt = {"token": "aaa.bbb.ccc", "expiresAt": expires_at.isoformat()}
        payload = parse_credential(json.dumps({"type": "jwt", "jwt": jwt}).encode())
        await credentials.store(instance_id=instances[name].id, scope="global", payload=payload, renewable=renewable)
    await asyncio.gather(*(place.outbox.announce_expiring() for _ in range(5)))
    await place.outbox.announce_expiring()
    [(kind, data)] = await place.told(instances["soon"])
    assert (kind, data["generation"]) == (EventType.CREDENTIAL_EXPIRING, 1)
    assert data["expiresAt"] == soon.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert await place.told(instances["renewed"]) == await place.told(instances["later"]) == []
    await credentials.store(instance_id=instances["soon"].id, scope="global", payload=payload)
    await place.outbox.announce_expiring()
    assert len(await place.told(instances["soon"])) == 1  # the new one ends later
    await place.outbox.announce_expiring(within_hours=48)
    assert [one[1]["generation"] for one in await place.told(instances["soon"])] == [1, 2]


@pytest.mark.parametrize(
    ("filters", "heard"),
    [
        ({}, True),
        ({"eventTypes": ["integration.connected"]}, True),
        ({"eventTypes": ["integration.credential.*", "integration.*"]}, True),
        ({"eventTypes": ["integration.credential.*"]}, False),
        ({"definition": "another"}, False),
        ({"instanceId": str(uuid.uuid4())}, False),
        ({"scope": "team"}, False),
        ({"allScopes": True, "definition": None}, True),
    ],
)
async def test_filters(place: Place, filters: dict[str, Any], heard: bool) -> None:
    subscription = await place.subscribe(
        *filters.get("eventTypes", []), **{key: value for key, value in filters.items() if key != "eventTypes"}
    )
    instance = await place.to(await place.add(), Status.CONNECTED)
    claimed = [one for one in await place.claim(subscription) if one.event.subject == instance.id]
    assert bool(claimed) == heard


async def test_another_scope_s_events_are_heard_by_nobody_of_this_one(place: Place) -> None:
    here, there = await place.subscribe(scope="team-a"), await place.subscribe(scope="team-b")
    await place.to(await place.add("team-a"), Status.CONNECTED)
    assert len(await place.claim(here)) == 1
    assert await place.claim(there) == []


async def test_an_instance_s_events_are_claimed_one_by_one_in_order(place: Place) -> None:
    subscription = await place.subscribe()
    instance = await place.to(await place.add(), Status.CONNECTED)
    await place.to(instance, Status.DISCONNECTED)
    seen = []
    while claimed := await place.claim(subscription):
        assert len(claimed) == 1
        assert await place.claim(subscription) == []  # the next waits until this one is settled
        seen.append(int(claimed[0].event.sequence or 0))
        await place.deliveries.delivered(claimed[0])
    assert seen == [1, 2, 3, 4]


async def test_a_failure_holds_its_instance_back_and_no_other(place: Place) -> None:
    subscription = await place.subscribe()
    one, other = await place.add(), await place.add()
    for instance in (one, other):
        await place.to(instance, Status.CONNECTED)
    first, second = await place.claim(subscription)
    assert not await place.deliveries.failed(first, "HTTP_500", again_in=timedelta(hours=1))
    await place.deliveries.delivered(second)
    [next_] = await place.claim(subscription)
    assert next_.event.subject == second.event.subject


async def test_what_a_dead_worker_claimed_comes_again_and_its_late_word_counts_no_more(place: Place) -> None:
    subscription = await place.subscribe("integration.connected")
    await place.to(await place.add(), Status.CONNECTED)
    [lost] = await place.claim(subscription, lease=timedelta(0))
    [again] = await place.claim(subscription)
    assert (again.event, again.claims) == (lost.event, lost.claims + 1)
    await place.deliveries.delivered(lost)
    assert not await place.deliveries.failed(again, "TIMEOUT", again_in=timedelta(0))
    assert len(await place.claim(subscription)) == 1


async def test_claimants_at_once_share_out_what_is_due(place: Place) -> None:
    subscription = await place.subscribe("integration.connected")
    for _ in range(40):
        await place.to(await place.add(), Status.CONNECTED)
    rounds = await asyncio.gather(*(place.claim(subscription, limit=10) for _ in range(12)))
    claimed = [one.event.id for found in rounds for one in found]
    assert len(claimed) == len(set(claimed)) == 40


async def test_after_three_days_it_is_a_dead_letter_and_the_next_one_s_turn(place: Place) -> None:
    subscription = await place.subscribe()
    await place.to(await place.add(), Status.CONNECTED)
    [first] = await place.claim(subscription)
    await place.database.one(
        "UPDATE integrations.deliveries SET queued_at = now() - interval '71 hours' WHERE event_id = %(id)s",
        {"id": first.event.id},
    )
    assert await place.deliveries.failed(first, "HTTP_503", again_in=timedelta(hours=2))
    [row] = await place.deliveries.dead(limit=10, subscription_id=subscription.id)
    assert (row["eventId"], row["reason"], row["attempts"]) == (first.event.id, "HTTP_503", 1)
    [second] = await place.claim(subscription)
    assert int(second.event.sequence or 0) == 2


async def test_who_is_gone_is_disabled_and_hears_the_rest_by_replay(place: Place) -> None:
    subscription = await place.subscribe()
    subscriptions = Subscriptions(place.database, place.keyring)
    instance = await place.to(await place.add(), Status.CONNECTED)
    [first] = await place.claim(subscription)
    assert await place.deliveries.gone(first, "HTTP_410") == 2
    disabled = await subscriptions.get(subscription.id)
    assert (disabled.enabled, disabled.disabled_reason) == (False, "HTTP_410")
    await place.to(instance, Status.DISCONNECTED)
    wanted = ReplayFilter(subscription_id=subscription.id)
    assert await place.deliveries.replay(wanted) == 0
    await subscriptions.enable(subscription.id)
    assert await place.claim(subscription) == []
    assert await place.deliveries.would_replay(wanted) == 4
    assert await place.deliveries.would_replay(ReplayFilter(subscription_id=subscription.id, dead=True)) == 2
    assert await place.deliveries.replay(wanted) == 4
    assert await place.deliveries.replay(wanted) == 0  # owed already
    [again] = await place.claim(subscription)
    assert (again.event.id, again.failures) == (first.event.id, 0)


async def test_a_replay_takes_one_event_or_a_time(place: Place) -> None:
    subscription = await place.subscribe()
    instance = await place.to(await place.add(), Status.CONNECTED)
    while claimed := await place.claim(subscription):
        await place.deliveries.delivered(claimed[0])
    _, last = await place.outbox.tail(limit=2, instance_id=instance.id)
    mine = {"subscription_id": subscription.id}
    assert await place.deliveries.would_replay(ReplayFilter(**mine, event_id=last.id)) == 1
    assert await place.deliveries.would_replay(ReplayFilter(**mine, since=last.time + timedelta(seconds=1))) == 0
    assert await place.deliveries.would_replay(ReplayFilter(**mine, until=last.time + timedelta(seconds=1))) == 2
    assert await place.deliveries.replay(ReplayFilter(event_id=last.id)) == 1
    [again] = await place.claim(subscription)
    assert again.event == last


async def test_a_method_s_event_is_written_only_where_somebody_wants_it(place: Place) -> None:
    instance = await place.add()
    await _log(place, instance)
    assert await place.told(instance) == []
    all_, failures = await place.subscribe("integration.method.*"), await place.subscribe("integration.method.failed")
    rows = [await _log(place, instance, status=status) for status in ("SUCCEEDED", "FAILED")]
    await _log(place, instance, key=rows[0])  # written again: no second event
    assert {kind for kind, _ in await place.told(instance)} == {EventType.METHOD_EXECUTED, EventType.METHOD_FAILED}
    claimed = await place.claim(all_)
    assert len(claimed) == 2  # at once: they have no order
    assert [one.event.type for one in await place.claim(failures)] == [EventType.METHOD_FAILED]
    data = next(one.event.data for one in claimed if one.event.type == EventType.METHOD_FAILED)
    assert data == {
        "instanceId": instance.id, "scope": "global", "definition": place.definition.name,
        "definitionVersion": "1.0.0", "method": "get", "executionKey": rows[1], "attempt": 1, "code": "HTTP_500",
        "statusCode": 500, "durationMs": 5, "workflowId": "w",
    }  # fmt: skip


async def _log(
    place: Place, instance: IntegrationInstance, *, status: str = "SUCCEEDED", key: str | None = None
) -> str:
    """The log's insert, with the events beside it."""
    key, failed = key or str(uuid.uuid4()), status == "FAILED"
    values = {
        "scheduled_at": datetime(2026, 5, 1, tzinfo=UTC), "execution_key": key, "attempt": 1, "scope": "global",
        "instance_id": instance.id, "definition": place.definition.name, "definition_version": "1.0.0",
        "method": "get", "workflow_id": "w", "run_id": None, "activity_id": None, "status": status,
        "code": "HTTP_500" if failed else None, "http_status": 500 if failed else None, "duration_ms": 5,
        "request_bytes": 0, "response_bytes": 0, "correlation_id": None,
    }  # fmt: skip
    assert values.keys() == Execution.__dataclass_fields__.keys()
    await place.database.one(
        f"""WITH execution AS (INSERT INTO audit.executions ({", ".join(values)})
                               VALUES ({", ".join(f"%({name})s" for name in values)})
                               ON CONFLICT DO NOTHING RETURNING *),
            {method_events("execution")} SELECT 1""",
        values,
    )
    return key


async def test_events_of_the_service_itself(place: Place) -> None:
    draft = EventDraft(EventType.AUDIT_SEALED, {"batch": 7})
    await place.outbox.publish(draft, subject="audit", only_if_wanted=True)
    assert await place.outbox.tail(limit=5, pattern="integration.audit.%") == []
    subscription = await place.subscribe("integration.audit.*", definition=None)
    await place.outbox.publish(draft, subject="audit")
    [one] = await place.claim(subscription)
    assert (one.event.type, one.event.subject, one.event.data) == (EventType.AUDIT_SEALED, "audit", {"batch": 7})


async def test_writers_at_once_number_an_instance_s_events_without_gap_or_double(place: Place) -> None:
    instance = await place.add()
    credentials = Credentials(place.database, place.keyring)
    payload = parse_credential(b'{"type": "oauth2", "oauth2": {"accessToken": "a", "tokenType": "Bearer"}}')
    await credentials.store(instance_id=instance.id, scope="global", payload=payload)

    async def renew() -> None:
        for _ in range(15):
            await credentials.store(instance_id=instance.id, scope="global", payload=payload, renewal=True)

    async def flip() -> None:
        current = instance
        for number in range(15):
            current = await place.to(current, Status.CONNECTED if number % 2 == 0 else Status.DISCONNECTED)

    await asyncio.gather(renew(), flip())
    events = await place.outbox.tail(limit=1000, instance_id=instance.id)
    assert sorted(int(event.sequence or 0) for event in events) == list(range(1, 46))


async def test_secrets_are_encrypted_rotated_and_forgotten(place: Place) -> None:
    subscriptions = Subscriptions(place.database, place.keyring)
    first, second, third = (new_secret() for _ in range(3))
    wanted = parse(NewSubscription, {"webhook": {"url": "https://receiver.example"}})
    subscription = await subscriptions.add(wanted, secret=first)
    await subscriptions.rotate(subscription.id, second, keep_old_for=timedelta(hours=1))
    assert await subscriptions.secrets(subscription.id) == (second, first)
    await subscriptions.rotate(subscription.id, third, keep_old_for=timedelta(0))
    assert await subscriptions.secrets(subscription.id) == (third,)
    rows = await place.database.all("SELECT * FROM vault.subscription_secrets")
    assert third.encode() not in b"".join(bytes(row["ciphertext"]) for row in rows)
    other = await subscriptions.add(wanted, secret=second)
    await place.database.one(
        """UPDATE vault.subscription_secrets a SET ciphertext = b.ciphertext, wrapped_key = b.wrapped_key,
                  commitment = b.commitment, nonce = b.nonce
             FROM vault.subscription_secrets b
            WHERE a.subscription_id = %(a)s AND b.subscription_id = %(b)s""",
        {"a": subscription.id, "b": other.id},
    )
    with pytest.raises(IntegrationError) as moved:
        await subscriptions.secrets(subscription.id)
    assert moved.value.code == ErrorCode.INTEGRITY_ERROR
    await subscriptions.remove(subscription.id)
    assert await subscriptions.secrets(subscription.id) == ()
    for call in (subscriptions.remove, subscriptions.get, subscriptions.enable):
        with pytest.raises(IntegrationError, match="no subscription"):
            await call(subscription.id)


async def test_a_workflow_has_no_secret_and_a_webhook_has_one(place: Place) -> None:
    subscriptions = Subscriptions(place.database, place.keyring)
    webhook = parse(NewSubscription, {"webhook": {"url": "https://receiver.example"}})
    workflow = parse(NewSubscription, {"workflow": {"workflowId": "w", "signalName": "s"}})
    for wanted, secret in ((webhook, None), (workflow, new_secret())):
        with pytest.raises(IntegrationError, match="secret"):
            await subscriptions.add(wanted, secret=secret)
    added = await subscriptions.add(workflow)
    with pytest.raises(IntegrationError, match="secret"):
        await subscriptions.rotate(added.id, new_secret(), keep_old_for=timedelta(0))
    assert added in await subscriptions.list(scope="global")


async def test_old_events_are_deleted_unless_they_are_owed(place: Place) -> None:
    subscription = await place.subscribe()
    instance = await place.to(await place.add(), Status.CONNECTED)
    await place.database.one(
        "UPDATE integrations.events SET time = now() - interval '31 days' WHERE instance_id = %(id)s",
        {"id": instance.id},
    )
    [first] = await place.claim(subscription)
    await place.deliveries.delivered(first)
    await place.outbox.prune()
    assert [kind for kind, _ in await place.told(instance)] == [EventType.CONNECTED]
    [second] = await place.claim(subscription)
    await place.deliveries.delivered(second)
    await place.outbox.prune()
    assert await place.told(instance) == []
    await place.to(instance, Status.DISCONNECTED)
    assert [int(event.sequence or 0) for event in await place.outbox.tail(limit=9, instance_id=instance.id)] == [3, 4]


async def test_a_long_backlog_behind_one_failure_costs_a_claim_little(place: Place) -> None:
    """What is blocked is not looked through one by one at each claim."""
    subscription = await place.subscribe()
    await place.to(await place.add(), Status.CONNECTED)
    [first] = await place.claim(subscription)
    await place.database.one(
        """WITH event AS (
               INSERT INTO integrations.events (id, type, scope, subject, instance_id, definition, sequence, data)
               SELECT gen_random_uuid(), 'integration.connected', 'global', 'x', %(id)s::uuid, %(definition)s, n, '{}'
                 FROM generate_series(3, 20002) n RETURNING *)
           INSERT INTO integrations.deliveries (subscription_id, event_id, instance_id, sequence)
           SELECT %(subscription)s, id, instance_id, sequence FROM event""",
        {"id": first.event.subject, "definition": place.definition.name, "subscription": subscription.id},
    )
    await place.database.one("ANALYZE integrations.deliveries", {})
    await place.deliveries.failed(first, "HTTP_500", again_in=timedelta(hours=1))
    started = time.perf_counter()
    for _ in range(20):
        assert await place.claim(subscription) == []
    assert (time.perf_counter() - started) / 20 < 0.05
