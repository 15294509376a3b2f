"""Row-level security by scope, through one pool that transactions of two owners share."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psycopg
import pytest

from integration_service.activities.webhooks import new_secret
from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.events import EventDraft, EventType, NewSubscription
from integration_service.contracts.instances import ConnectInstanceInput, IntegrationInstanceStatus
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import parse
from integration_service.devstack.stack import Stack
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database, within_scope
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.large_results import LargeResults
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.outbox import Outbox
from integration_service.storage.subscriptions import Subscriptions
from integration_service.storage.vault.keyring import Keyring
from tests.fresh_database import fresh_database
from tests.world import definition_file

OWNERS = ("ada", "bob")
TABLES = {
    "integrations.instances": "scope",
    "integrations.definitions": "scope",
    "vault.credentials": "scope",
    "vault.oauth_clients": "scope",
    "integrations.large_results": "(SELECT i.scope FROM integrations.instances i WHERE i.id = instance_id)",
    "integrations.events": "scope",
    "integrations.subscriptions": "scope",
    "integrations.deliveries": "(SELECT e.scope FROM integrations.events e WHERE e.id = event_id)",
    "vault.subscription_secrets": "(SELECT s.scope FROM integrations.subscriptions s WHERE s.id = subscription_id)",
}
"""What each row's owner is."""
SHARED = ("integrations.definitions", "vault.oauth_clients", "integrations.subscriptions")
"""Where the global ones are everybody's to see: of subscriptions, those to all scopes."""


@dataclass
class Place:
    pool: Database
    """Few connections, of a worker's login."""
    registry: str
    instances: dict[str, list[str]]


@pytest.fixture(scope="module")
async def place(stack: Stack, keyring: Keyring) -> AsyncIterator[Place]:
    async with (
        fresh_database(stack) as fresh,
        fresh.login("worker", "audit_reader") as worker,
        fresh.login("registry") as registry,
        Database(worker, max_connections=4) as pool,
    ):
        found: dict[str, list[str]] = {}
        for scope in (*OWNERS, "global"):
            file = parse(DefinitionFile, definition_file("thing", scope=scope))
            definition = await Definitions(pool).apply(file, publish=True)
            await OAuthClients(pool, keyring).store(
                scope=scope, definition="thing", client=OAuthClientRecord(client_id=scope)
            )
            for number in range(3):
                id_ = str(uuid.uuid4())
                found.setdefault(scope, []).append(id_)
                wanted = ConnectInstanceInput(instance_id=id_, definition="thing", name=f"{number}", scope=scope)
                await Instances(pool).add(wanted, definition)
                payload = parse_credential(b'{"type":"custom","custom":{"a":"b"}}')
                await Credentials(pool, keyring).store(instance_id=id_, scope=scope, payload=payload)
                await LargeResults(pool, keyring).store(instance_id=id_, data={"of": scope})
            await subscribe(pool, keyring, scope=scope)
        await subscribe(pool, keyring, allScopes=True)
        for scope in (*OWNERS, "global"):
            await happen(pool, scope)
        yield Place(pool, registry, found)


async def subscribe(pool: Database, keyring: Keyring, **more: object) -> str:
    asked = {"webhook": {"url": "https://receiver.example/"}, "eventTypes": ["*"], **more}
    subscription = await Subscriptions(pool, keyring).add(parse(NewSubscription, asked), secret=new_secret())
    return subscription.id


async def happen(pool: Database, scope: str) -> None:
    await Outbox(pool).publish(EventDraft(EventType.AUDIT_ALERT, {"of": scope}), subject="s", scope=scope)


async def owners(database: Database, table: str) -> set[str]:
    return {row["owner"] for row in await database.all(f"SELECT {TABLES[table]} AS owner FROM {table}")}


@pytest.mark.parametrize(("transactions"), [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_no_row_crosses_between_interleaved_transactions_of_two_owners(place: Place, transactions: int) -> None:
    """Statements, transactions and unscoped work take turns on four connections."""
    chance = random.Random(8)
    slots = asyncio.Semaphore(32)
    looked = dict.fromkeys((*OWNERS, None), 0)

    async def one(owner: str | None, table: str, whole: bool) -> None:
        async with slots:
            if owner is None:
                assert set(OWNERS) <= await owners(place.pool, table)
            elif whole:
                with within_scope(owner):
                    async with place.pool.transaction() as connection:
                        for _ in range(2):
                            cursor = await connection.execute(f"SELECT {TABLES[table]} AS owner FROM {table}".encode())
                            assert {row["owner"] for row in await cursor.fetchall()} - {"global"} == {owner}
                            await asyncio.sleep(0)
            else:
                with within_scope(owner):
                    seen = await owners(place.pool, table)
                assert seen - {"global"} == {owner}
                if table not in SHARED:
                    assert seen == {owner}
            looked[owner] += 1

    await asyncio.gather(
        *(
            one(chance.choice((*OWNERS, *OWNERS, None)), chance.choice(list(TABLES)), chance.random() < 0.3)
            for _ in range(transactions)
        )
    )
    assert sum(looked.values()) == transactions
    assert all(looked.values())


async def test_another_owners_rows_can_be_neither_changed_nor_made(place: Place, keyring: Keyring) -> None:
    hers, his = place.instances["ada"][0], place.instances["bob"][0]
    with within_scope("bob"):
        for statement in (
            "UPDATE integrations.instances SET name = 'stolen' WHERE id = %(id)s RETURNING id",
            "UPDATE vault.credentials SET expires_at = now() WHERE instance_id = %(id)s RETURNING id",
            "DELETE FROM integrations.large_results WHERE instance_id = %(id)s RETURNING id",
        ):
            assert await place.pool.all(statement, {"id": hers}) == []
        for statement, id_ in (
            ("UPDATE integrations.instances SET scope = 'ada' WHERE id = %(id)s", his),
            (
                """INSERT INTO integrations.instances (id, scope, name, definition_id, config, status)
                   SELECT %(id)s, 'ada', 'x', definition_id, '{}', status FROM integrations.instances LIMIT 1""",
                str(uuid.uuid4()),
            ),
            ("UPDATE integrations.definitions SET revision = 9 WHERE scope = 'global' AND %(id)s <> ''", his),
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await place.pool.one(statement, {"id": id_})
        with pytest.raises(IntegrationError):
            await Instances(place.pool).get(hers)
        # The global client is everybody's to use.
        clients = OAuthClients(place.pool, keyring)
        assert (await clients.load(scope="bob", definition="thing")) == OAuthClientRecord(client_id="bob")
        assert (await clients.load(scope="ada", definition="thing")) == OAuthClientRecord(client_id="global")
    with within_scope("ada"):
        assert (await Instances(place.pool).get(hers)).name == "0"


async def test_what_happens_in_a_scope_is_written_to_whoever_listens_to_all(place: Place, keyring: Keyring) -> None:
    """In a statement that is held to the scope: it sees its own subscriptions and those to all scopes."""
    to_all = await subscribe(place.pool, keyring, allScopes=True)
    own = {scope: await subscribe(place.pool, keyring, scope=scope) for scope in OWNERS}
    with within_scope("ada"):
        await happen(place.pool, "ada")
        instance = await Instances(place.pool).get(place.instances["ada"][0])
        await Instances(place.pool).update(
            instance,
            status=IntegrationInstanceStatus.CONNECTED,
            error=None,
            config={},
            definition_id=instance.integration_definition_id,
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await happen(place.pool, "bob")
        assert {one.id for one in await Subscriptions(place.pool, keyring).list()} >= {own["ada"], to_all}
        assert own["bob"] not in {one.id for one in await Subscriptions(place.pool, keyring).list()}
        assert await Subscriptions(place.pool, keyring).secrets(own["bob"]) == ()
        for statement in (
            "UPDATE integrations.subscriptions SET enabled = false WHERE id = ANY (%(ids)s::uuid[]) RETURNING id",
            "DELETE FROM integrations.subscriptions WHERE id = ANY (%(ids)s::uuid[]) RETURNING id",
            "DELETE FROM integrations.deliveries WHERE subscription_id = ANY (%(ids)s::uuid[]) AND event_id IN ("
            "SELECT id FROM integrations.events WHERE scope = 'bob') RETURNING event_id",
        ):
            assert await place.pool.all(statement, {"ids": [own["bob"], to_all]}) == []
    owed = await place.pool.all(
        """SELECT d.subscription_id, e.type FROM integrations.deliveries d
             JOIN integrations.events e ON e.id = d.event_id
            WHERE d.subscription_id = ANY (%(ids)s::uuid[])""",
        {"ids": [to_all, *own.values()]},
    )
    told = {"integration.audit.alert", "integration.instance.status", "integration.connected"}
    for listener in (to_all, own["ada"]):
        assert {row["type"] for row in owed if str(row["subscription_id"]) == listener} == told
    assert own["bob"] not in {str(row["subscription_id"]) for row in owed}


async def test_a_registrys_session_with_a_scope_sees_its_own(place: Place) -> None:
    """As `ALTER ROLE … SET integrations.scope` does it."""
    async with await psycopg.AsyncConnection.connect(
        place.registry, options="-c integrations.scope=ada", autocommit=True
    ) as connection:
        for table, seen in (("instances", {"ada"}), ("definitions", {"ada", "global"})):
            cursor = await connection.execute(f"SELECT DISTINCT scope FROM integrations.{table}".encode())
            assert {scope for (scope,) in await cursor.fetchall()} == seen


async def test_the_scope_ends_with_its_transaction(place: Place) -> None:
    """Failed ones too: whoever gets the connection next has none."""
    async with place.pool.connection() as connection:
        pid = connection.info.backend_pid
    for statement in ("SELECT 1 AS a", "SELECT 1 / 0 AS a"):
        with within_scope("ada"), contextlib.suppress(IntegrationError):
            await place.pool.one(statement, {})
        rows = await asyncio.gather(
            *(
                place.pool.one(
                    "SELECT pg_backend_pid() AS pid, current_setting('integrations.scope', true) AS scope", {}
                )
                for _ in range(20)
            )
        )
        assert {row["scope"] for row in rows if row} <= {None, ""}
        assert pid is not None


async def test_errors_are_told_as_without_a_scope(place: Place) -> None:
    with within_scope("ada"):
        with pytest.raises(IntegrationError) as refused:
            await place.pool.one("SELECT 1 / 0", {})
        assert refused.value.code == "VALIDATION_ERROR"
        with pytest.raises(psycopg.errors.UniqueViolation):
            await place.pool.one("INSERT INTO integrations.instances SELECT * FROM integrations.instances LIMIT 1", {})
        assert await place.pool.one("SELECT 1 AS a WHERE false", {}) is None
        assert await place.pool.one("DELETE FROM integrations.waiters", {}) is None


@pytest.mark.slow
async def test_what_a_scope_costs(place: Place) -> None:
    """No round trip: a statement with a scope takes less than one more statement would."""

    async def timed(count: int = 2_000) -> float:
        began = time.perf_counter()
        for _ in range(count):
            await place.pool.one("SELECT 1 FROM vault.credentials WHERE id = %(id)s", {"id": str(uuid.uuid4())})
        return (time.perf_counter() - began) / count * 1_000

    await timed(200)
    without = min([await timed() for _ in range(3)])
    with within_scope("ada"):
        scoped = min([await timed() for _ in range(3)])
    print(f"a statement: {without:.3f} ms without a scope, {scoped:.3f} ms with one")
    assert scoped < 2.5 * without
