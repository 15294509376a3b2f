"""What each role may do, tried as a login that is a member of it: also with tables and functions that come later."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from integration_service.client import Integrations
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.connect_tickets import ConnectTicketWanted
from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.instances import ConnectInstanceInput, IntegrationInstanceStatus
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import parse
from integration_service.devstack.stack import Stack
from integration_service.plugin import IntegrationPlugin
from integration_service.settings import Settings
from integration_service.storage.audit import AuditLog, Execution
from integration_service.storage.authorizations import Authorizations, pending, state_hash
from integration_service.storage.connect_tickets import ConnectTickets
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database, within_scope
from integration_service.storage.decrypt_log import DecryptLog
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.large_results import LargeResults
from integration_service.storage.migrations import migrate
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.schema_version import check_schema_version
from integration_service.storage.seal_keys import SealKeys, current_seal_key
from integration_service.storage.standing import standing
from integration_service.storage.vault.keyring import KeyRef, Keyring, generate_keyring_file
from integration_service.storage.vault.openings import Opening, Use
from integration_service.storage.vault.seal import seal
from tests.fresh_database import FreshDatabase, fresh_database
from tests.upstream import json_answer
from tests.world import World, definition_file, method

ROLES = ("registry", "worker", "gateway", "audit_writer", "audit_reader", "maintenance")
USE = Use(worker="w", reason="call", activity_type="a.b", activity_id="1", attempt=1)


@pytest.fixture(scope="module")
async def place(stack: Stack) -> AsyncIterator[FreshDatabase]:
    async with fresh_database(stack) as fresh:
        yield fresh


@pytest.fixture(scope="module")
async def urls(place: FreshDatabase) -> AsyncIterator[dict[str, str]]:
    """A login of each role."""
    async with AsyncExitStack() as logins:
        yield {role: await logins.enter_async_context(place.login(role)) for role in ROLES}


@pytest.fixture
async def seeded(place: FreshDatabase, keyring: Keyring) -> str:
    """Id of an instance of scope `s` with a secret in each place, made by the owner."""
    instance, name = str(uuid.uuid4()), f"d{uuid.uuid4().hex[:8]}"
    async with Database(place.url) as database:
        definition = await Definitions(database).apply(parse(DefinitionFile, definition_file(name)), publish=True)
        wanted = ConnectInstanceInput(instance_id=instance, definition=name, name=name, scope="s")
        await Instances(database).add(wanted, definition)
        payload = parse_credential(b'{"type":"custom","custom":{"a":"planted-secret"}}')
        await Credentials(database, keyring).store(instance_id=instance, scope="s", payload=payload)
        await SealKeys(database, keyring).ensure()
    return instance


async def refused(url: str, statement: str) -> bool:
    """Whether the database says that the login may not."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        try:
            await connection.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege:
            return True
        except psycopg.Error:
            return False
        return False


async def objects(url: str, schema: str) -> list[tuple[str, str]]:
    """Name and kind of every table, view, sequence, index and function of a schema."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute(
            """SELECT c.oid::regclass::text, c.relkind::text FROM pg_class c
                WHERE c.relnamespace = %(schema)s::regnamespace
               UNION ALL
               SELECT p.oid::regprocedure::text, 'f' FROM pg_proc p WHERE p.pronamespace = %(schema)s::regnamespace""",
            {"schema": schema},
        )
        return await cursor.fetchall()


async def first_columns(url: str) -> dict[str, str]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute("SELECT attrelid::regclass::text, attname FROM pg_attribute WHERE attnum = 1")
        return dict(await cursor.fetchall())


@pytest.mark.parametrize("role", ["registry", "audit_writer", "audit_reader", "maintenance"])
async def test_who_has_nothing_to_do_with_secrets_is_refused_on_every_object_of_the_vault(
    place: FreshDatabase, urls: dict[str, str], role: str, seeded: str
) -> None:
    found = await objects(place.superuser, "vault")
    tables = [name for name, kind in found if kind in "rpvm"]
    assert {"vault.credentials", "vault.seal_keys", "vault.oauth_clients", "vault.authorizations"} <= set(tables)
    for name in tables:
        for statement in (
            f"SELECT 1 FROM {name}",
            f"TABLE {name}",
            f"INSERT INTO {name} DEFAULT VALUES",
            f"DELETE FROM {name}",
            f"TRUNCATE {name}",
            f"COPY {name} TO STDOUT",
        ):
            assert await refused(urls[role], statement), statement
    # Sequences, indexes and functions: without the schema none of them can be named, and none is granted.
    async with await psycopg.AsyncConnection.connect(place.superuser) as connection:
        user = psycopg.conninfo.conninfo_to_dict(urls[role])["user"]
        for name, kind in [("vault", "n"), *found]:
            asked = {
                "n": "has_schema_privilege(%(user)s, %(name)s, 'USAGE, CREATE')",
                "f": "has_function_privilege(%(user)s, %(name)s, 'EXECUTE')",
                "S": "has_sequence_privilege(%(user)s, %(name)s, 'USAGE, SELECT, UPDATE')",
                "i": "false",  # read through its table only
            }.get(kind, "has_any_column_privilege(%(user)s, %(name)s, 'SELECT, INSERT, UPDATE, REFERENCES')")
            cursor = await connection.execute(f"SELECT {asked}".encode(), {"user": user, "name": name})
            assert await cursor.fetchone() == (False,), name


async def test_nobody_but_the_owner_changes_the_execution_log(urls: dict[str, str], place: FreshDatabase) -> None:
    tables = [name for name, kind in await objects(place.superuser, "audit") if kind in "rp"]
    assert "audit.executions" in tables
    columns = await first_columns(place.superuser)
    for role in ROLES:
        for name in tables:
            for statement in (
                f"UPDATE {name} SET {columns[name]} = DEFAULT",
                f"DELETE FROM {name}",
                f"TRUNCATE {name}",
            ):
                if (role, statement[:6]) == ("maintenance", "DELETE") and name in ("audit.decrypts", "audit.alerts"):
                    continue  # what is pruned row by row
                assert await refused(urls[role], statement), (role, statement)
            assert await refused(urls[role], f"DROP TABLE {name}"), (role, name)


async def test_a_writer_only_writes_and_a_reader_only_reads(urls: dict[str, str]) -> None:
    async with Database(urls["audit_writer"]) as database:
        await DecryptLog(database).write([opening("00000000-0000-4000-8000-000000000001")])
        await database.one(*insert(execution(str(uuid.uuid4()))))
    for table in ("executions", "decrypts"):
        assert await refused(urls["audit_writer"], f"SELECT 1 FROM audit.{table}")
        assert await refused(urls["audit_reader"], f"INSERT INTO audit.{table} DEFAULT VALUES")
    async with Database(urls["audit_reader"]) as database:
        assert await database.all("SELECT * FROM audit.executions")
        assert await database.all("SELECT * FROM audit.decrypts")
        assert await AuditLog(database).tail(limit=1)
    assert await refused(urls["audit_reader"], "SELECT 1 FROM integrations.instances")


async def test_a_registry_does_its_work(urls: dict[str, str], seeded: str) -> None:
    name = f"d{uuid.uuid4().hex[:8]}"
    async with Database(urls["registry"]) as database:
        await check_schema_version(database)
        definitions = Definitions(database)
        file = parse(DefinitionFile, definition_file(name))
        await definitions.apply(file, publish=False)
        await definitions.apply(file, publish=True)
        found = await definitions.find("global", name)
        assert found is not None
        for status in ("DEPRECATED", "ARCHIVED"):
            await definitions.move(scope="global", name=name, version="1.0.0", to=type(found.status)(status))
        assert seeded in {instance.id for instance in await Instances(database).list()}
    assert await refused(urls["registry"], "UPDATE integrations.instances SET status = 'CONNECTED'")
    assert await refused(urls["registry"], "SELECT 1 FROM integrations.large_results")
    assert await refused(urls["registry"], "SELECT method FROM audit.executions")


@pytest.mark.parametrize("scoped", [False, True])
async def test_a_worker_does_its_work(urls: dict[str, str], keyring: Keyring, seeded: str, scoped: bool) -> None:
    """Also where every statement is held to its scope."""
    async with AsyncExitStack() as opened:
        database = await opened.enter_async_context(Database(urls["worker"]))
        await check_schema_version(database)
        if scoped:
            opened.enter_context(within_scope("s"))
        instances, credentials = Instances(database), Credentials(database, keyring)
        old = await instances.get(seeded)
        definition = await Definitions(database).connectable("s", old.definition)
        id_ = str(uuid.uuid4())
        wanted = ConnectInstanceInput(instance_id=id_, definition=old.definition, name=id_[:8], scope="s")
        instance = await instances.add(wanted, definition)
        await instances.update(
            instance, status=old.status, error=None, config={}, definition_id=instance.integration_definition_id
        )
        payload = parse_credential(b'{"type":"custom","custom":{"a":"b"}}')
        assert await credentials.store(instance_id=id_, scope="s", payload=payload) == 1
        assert await credentials.store(instance_id=id_, scope="s", payload=payload, renewal=True) == 2
        for_call = await instances.for_call("s", id_, method="get")
        assert for_call.credential is not None
        assert (await credentials.open(for_call.credential)).custom == {"a": "b"}
        await SealKeys(database, keyring).ensure()
        clients = OAuthClients(database, keyring)
        await clients.store(scope="s", definition=old.definition, client=OAuthClientRecord(client_id="a"))
        await clients.store(scope="s", definition=old.definition, client=OAuthClientRecord(client_id="b"))
        found = await clients.load(scope="s", definition=old.definition, instance_id=id_)
        assert found is not None
        assert found.client_id == "b"
        authorizations, hashed = Authorizations(database, keyring), state_hash(id_)
        await authorizations.begin(
            hashed=hashed, instance_id=id_, scope="s", return_url=None, secret={}, lifetime=timedelta(minutes=1)
        )
        assert await authorizations.claim(hashed, id_, claimant="c") == {}
        ref = await LargeResults(database, keyring).store(instance_id=id_, data={"a": 1})
        assert await LargeResults(database, keyring).open(ref.id) is not None
        await AuditLog(database).record(execution(id_), settles_intent=False)
        await DecryptLog(database).write([opening(id_)])
        await credentials.erase(id_)
        await instances.delete(id_)
    assert await refused(urls["worker"], "SELECT method FROM audit.executions")


async def test_a_gateway_reads_what_it_shows_and_no_more(
    urls: dict[str, str], place: FreshDatabase, keyring: Keyring, seeded: str
) -> None:
    hashed = state_hash(seeded)
    async with Database(place.url) as database:
        await Authorizations(database, keyring).begin(
            hashed=hashed, instance_id=seeded, scope="s", return_url=None, secret={}, lifetime=timedelta(minutes=1)
        )
        ref = await LargeResults(database, keyring).store(instance_id=seeded, data={"a": 1})
    async with Database(urls["gateway"]) as database:
        await check_schema_version(database)
        assert await current_seal_key(database) is not None
        found = await pending(database, hashed)
        assert found is not None
        assert found.instance_id == seeded
        assert await LargeResults(database, keyring).open(ref.id) is not None
        assert await Definitions(database).list()
        tickets = ConnectTickets(database)
        wanted = ConnectTicketWanted(instance_id=seeded, scope="s")
        ticket = (await tickets.make(wanted, public_url="http://g", return_urls=())).url.rpartition("/")[2]
        assert await tickets.look(ticket) is not None
        session = await tickets.exchange(ticket)
        assert session is not None
        assert await tickets.count_post(session)
        assert await tickets.in_session(session) is not None
        await tickets.end(session)
        assert await tickets.in_session(session) is None
    for statement in (
        "UPDATE integrations.definitions SET status = 'ARCHIVED'",
        "SELECT 1 FROM vault.credentials",
        "SELECT 1 FROM vault.oauth_clients",
        "SELECT wrapped_key FROM vault.seal_keys",
        "SELECT ciphertext FROM vault.authorizations",
        "SELECT config FROM integrations.instances",
        "DELETE FROM integrations.connect_tickets",
        "DELETE FROM vault.authorizations",
        "SELECT 1 FROM audit.executions",
    ):
        assert await refused(urls["gateway"], statement), statement


async def test_no_role_sees_plaintext(urls: dict[str, str], place: FreshDatabase, seeded: str) -> None:
    for url in (*urls.values(), place.superuser):
        seen = b""
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            for schema in ("integrations", "vault", "audit"):
                for name, kind in await objects(place.superuser, schema):
                    if kind not in "rpv":
                        continue
                    try:
                        cursor = await connection.execute(f"SELECT t::text FROM {name} t".encode())
                    except psycopg.errors.InsufficientPrivilege:
                        continue
                    seen += repr(await cursor.fetchall()).encode()
        assert b"planted-secret" not in seen
        assert b"planted-secret".hex().encode() not in seen


async def test_an_owner_who_may_make_no_roles_migrates_all_the_same(place: FreshDatabase) -> None:
    """The stack's own role is such a one; and grants may be given again."""
    async with Database(place.url) as database:
        row = await database.one("SELECT rolcreaterole, rolsuper FROM pg_roles WHERE rolname = current_user", {})
        assert row == {"rolcreaterole": False, "rolsuper": False}
        await database.one("SELECT integrations.grant_roles()", {})


async def test_what_a_member_of_the_owner_migrates_belongs_to_the_role(stack: Stack) -> None:
    """As docs/keys.md says it is deployed; partitions and grants are then the role's to make."""
    async with (
        fresh_database(stack, migrated=False) as fresh,
        await psycopg.AsyncConnection.connect(fresh.superuser, autocommit=True) as admin,
        fresh.login("owner") as migrator,
        fresh.login("worker") as worker,
    ):
        name = str(psycopg.conninfo.conninfo_to_dict(migrator)["user"])
        database = str(psycopg.conninfo.conninfo_to_dict(fresh.url)["dbname"])
        await admin.execute(f"GRANT CREATE ON DATABASE {database} TO integrations_owner".encode())
        await admin.execute(f"ALTER ROLE {name} SET role = 'integrations_owner'".encode())
        await asyncio.to_thread(migrate, migrator)
        cursor = await admin.execute(
            """SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('integrations', 'vault', 'audit')"""
        )
        assert await cursor.fetchall() == [("integrations_owner",)]
        async with Database(migrator) as owner:
            await owner.one("SELECT integrations.grant_roles()", {})
            await owner.one("CREATE TABLE vault.of_the_future (a integer)", {})
        for table in ("vault.credentials", "vault.of_the_future"):
            assert not await refused(worker, f"SELECT 1 FROM {table}")
        await admin.execute(b"REVOKE CREATE ON DATABASE " + database.encode() + b" FROM integrations_owner")


async def test_a_table_of_the_future_is_the_workers_and_not_the_registrys(
    place: FreshDatabase, urls: dict[str, str]
) -> None:
    async with Database(place.url) as database:
        for schema in ("vault", "integrations"):
            await database.one(f"CREATE TABLE {schema}.of_the_future (a integer)", {})
            assert not await refused(urls["worker"], f"SELECT 1 FROM {schema}.of_the_future")
            assert await refused(urls["registry"], f"SELECT 1 FROM {schema}.of_the_future")
            await database.one(f"DROP TABLE {schema}.of_the_future", {})
        await database.one(
            "CREATE TABLE audit.executions_2099 PARTITION OF audit.executions "
            "FOR VALUES FROM ('2099-01-01') TO ('2099-02-01')",
            {},
        )
        for role in ROLES:
            assert await refused(urls[role], "SELECT 1 FROM audit.executions_2099")
        await database.one("DROP TABLE audit.executions_2099", {})


def opening(instance: str) -> Opening:
    return Opening(USE, "credential", ("s", instance, instance, "custom", "1", "1"), KeyRef("kek", 1))


def execution(instance: str) -> Execution:
    known = {
        "scheduled_at": datetime.now(UTC),
        "execution_key": str(uuid.uuid4()),
        "attempt": 1,
        "scope": "s",
        "instance_id": instance,
        "definition": "d",
        "definition_version": "1.0.0",
        "method": "m",
        "status": "SUCCEEDED",
        "duration_ms": 1,
        "request_bytes": 0,
        "response_bytes": 0,
    }
    return Execution(**{name: known.get(name) for name in Execution.__dataclass_fields__})


def insert(row: Execution) -> tuple[str, dict[str, object]]:
    values = {name: value for name, value in asdict(row).items() if value is not None}
    names = ", ".join(values)
    return f"INSERT INTO audit.executions ({names}) VALUES ({', '.join(f'%({one})s' for one in values)})", values


async def test_a_whole_worker_runs_as_a_member_of_its_role(
    place: FreshDatabase, urls: dict[str, str], world: World, temporal: Client, tmp_path: Path, name: str
) -> None:
    """In a scope of its own, with a definition that is global: connect, submit, call, disconnect, delete."""
    ring, queue = tmp_path / "keyring.json", f"roles-{name}"
    generate_keyring_file(ring)
    world.upstream.answers = [json_answer({"ok": True})] * 3
    file = definition_file(
        name,
        authType="api_key",
        connectionTest="get",
        methods=[method("get", "GET", "/things/1", cache={"ttlMs": 60_000})],
    )
    settings = Settings(database_url=urls["worker"], keyring=str(ring), task_queue=queue, egress_allow=("127.0.0.0/8",))
    async with Database(place.url) as database:
        await database.one("DELETE FROM vault.seal_keys", {})  # it is under another keyring
        await Definitions(database).apply(parse(DefinitionFile, file), publish=True)
        async with Worker(temporal, task_queue=queue, plugins=[IntegrationPlugin(settings)]):
            integrations = Integrations(temporal, task_queue=queue)
            wanted = ConnectInstanceInput(
                instance_id=str(uuid.uuid4()),
                definition=name,
                name=name,
                scope="own",
                config={"url": world.upstream.url},
            )
            connection = integrations.connection((await integrations.connect(wanted))["id"])
            key = await current_seal_key(database)
            assert key is not None
            secret = b'{"type":"api_key","apiKey":{"key":"k-0123456789","headerOrParam":"X-K","inHeader":true}}'
            status = await connection.submit_credentials(seal(key, wanted.instance_id, secret))
            assert status["status"] == "CONNECTED", status
            call = MethodCall(instance_id=wanted.instance_id, scope="own", method="get")
            assert (await integrations.call(call)).data == {"ok": True}
            assert (await integrations.call(call)).cached
            assert (await connection.update("disconnect"))["status"] == "DISCONNECTED"
            await connection.update("delete")
        assert await database.all("SELECT 1 FROM integrations.instances WHERE scope = 'own'") == []
        reasons = await database.all("SELECT DISTINCT reason FROM audit.decrypts WHERE scope = 'own'")
        assert {row["reason"] for row in reasons} == {"test", "call"}


async def test_workers_tell_how_the_service_stands_and_of_the_log_where_they_may_read_it(urls: dict[str, str]) -> None:
    async with Database(urls["worker"]) as worker, Database(urls["maintenance"]) as keeper:
        seen = await standing(worker)
        assert set(seen.connections) == {status.value for status in IntegrationInstanceStatus}
        assert seen.unsealed_age is None
        assert (await standing(keeper)).unsealed_age is not None


async def test_the_gateway_can_tell_whether_it_is_ready(urls: dict[str, str]) -> None:
    async with Database(urls["gateway"]) as gateway:
        await check_schema_version(gateway, running=True)
