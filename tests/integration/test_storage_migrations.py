"""Migrations on databases of their own: repeatable, safe at once, and checked before use."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import parse
from integration_service.devstack.stack import Stack
from integration_service.storage import migrations
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.migrations import migrate
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.schema_version import HEAD, check_schema_version
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, Context, encrypt
from integration_service.storage.vault.keyring import Keyring
from tests.world import definition_file


@pytest.fixture
async def fresh(stack: Stack) -> AsyncIterator[str]:
    """URL of an empty database that the service's role owns; gone after the test."""
    url = urlsplit(stack.ready.database)
    # Only the superuser makes databases; its password lies beside the keyring, in the stack's data directory.
    kept = json.loads((Path(stack.environment["INTEGRATIONS_KEYRING"]).parent / "database.json").read_text())
    name = sql.Identifier(f"fresh_{uuid.uuid4().hex[:12]}")
    async with await psycopg.AsyncConnection.connect(
        host=url.hostname,
        port=url.port,
        user="postgres",
        password=kept["superuser"],
        dbname="postgres",
        autocommit=True,
    ) as connection:
        await connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(name, sql.Identifier(url.username or ""))
        )
        yield urlunsplit(url._replace(path=f"/{name._obj[0]}"))
        await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


async def refusal(url: str) -> IntegrationError | None:
    async with Database(url) as database:
        try:
            await check_schema_version(database)
        except IntegrationError as error:
            return error
    return None


async def tables(url: str) -> list[str]:
    async with Database(url) as database:
        rows = await database.all(
            """SELECT schemaname || '.' || tablename AS name FROM pg_tables
                WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"""
        )
    return [row["name"] for row in rows]


def test_the_programs_version_is_alembics_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_a_fresh_database_is_brought_up_and_a_second_time_stays(fresh: str) -> None:
    await asyncio.to_thread(migrate, fresh)
    first = await tables(fresh)
    assert {"integrations.definitions", "vault.credentials", "audit.executions"} <= set(first)
    assert await refusal(fresh) is None
    await asyncio.to_thread(migrate, fresh)
    assert await tables(fresh) == first


def migrate_to(url: str, revision: str) -> None:
    """What an older program's `migrate` did."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    with engine.connect() as connection, connection.begin():
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS integrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


async def test_rows_of_the_first_version_are_kept_and_open(fresh: str, keyring: Keyring) -> None:
    await asyncio.to_thread(migrate_to, fresh, "0001")
    instance, credential = str(uuid.uuid4()), str(uuid.uuid4())
    columns, values = ", ".join(ENVELOPE_COLUMNS), ", ".join(f"%({name})s" for name in ENVELOPE_COLUMNS)
    payload = parse_credential(b'{"type":"custom","custom":{"a":"b"}}')
    async with Database(fresh) as database:
        definition = await Definitions(database).apply(parse(DefinitionFile, definition_file("old")), publish=True)
        await Instances(database).add(
            ConnectInstanceInput(instance_id=instance, definition="old", name="old"), definition
        )
        named = ("global", instance, credential, "custom", "1", "4")
        envelope = await encrypt(keyring, json.dumps(payload.to_wire()).encode(), Context("credential", named))
        await database.one(
            f"""INSERT INTO vault.credentials (id, instance_id, type, schema_version, generation, {columns})
                VALUES (%(id)s, %(instance_id)s, 'custom', 1, 4, {values})""",
            {"id": credential, "instance_id": instance, **envelope.to_row()},
        )
        wire = b'{"clientId": "id", "clientSecret": "s"}'
        envelope = await encrypt(keyring, wire, Context("oauth_client", ("global", "old")))
        await database.one(
            f"INSERT INTO vault.oauth_clients (definition_name, {columns}) VALUES ('old', {values})",
            envelope.to_row(),
        )
        older = await refusal(fresh)
        assert older is not None
        assert "integrations migrate" in older.message
    await asyncio.to_thread(migrate, fresh)
    assert await refusal(fresh) is None
    async with Database(fresh) as database:
        credentials, clients = Credentials(database, keyring), OAuthClients(database, keyring)
        for_call = await Instances(database).for_call("global", "old")
        stored = for_call.credential
        assert stored is not None
        assert (await credentials.open(stored)).custom == {"a": "b"}
        assert (stored.generation, stored.expires_at, stored.granted_scope, stored.renewable) == (4, None, None, False)
        assert for_call.refresh_sends == 0
        assert await credentials.store(instance_id=instance, scope="global", payload=payload, expected=4) == 5
        old = OAuthClientRecord(client_id="id", client_secret="s")
        assert await clients.load(scope="team", definition="old", instance_id=instance) == old
        new = OAuthClientRecord(client_id="new")
        await clients.store(scope="global", definition="old", client=new)
        assert await clients.load(scope="team", definition="old", instance_id=instance) == new
        await Instances(database).delete(instance)


async def test_two_that_migrate_at_once_both_succeed(fresh: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate, fresh) for _ in range(2)))
    assert await refusal(fresh) is None


async def test_an_empty_database_is_refused_with_the_command_to_run(fresh: str) -> None:
    error = await refusal(fresh)
    assert error is not None
    assert (error.code, error.path) == (ErrorCode.UNAVAILABLE, "database")
    assert "integrations migrate" in error.message


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE integrations.alembic_version SET version_num = '9999'", "newer"),
        ("UPDATE integrations.alembic_version SET version_num = '0000'", "integrations migrate"),
        ("DELETE FROM integrations.alembic_version", "integrations migrate"),
    ],
)
async def test_an_older_or_newer_database_is_refused_with_what_to_do(fresh: str, statement: str, says: str) -> None:
    await asyncio.to_thread(migrate, fresh)
    async with Database(fresh) as database:
        await database.one(statement, {})
    error = await refusal(fresh)
    assert error is not None
    assert error.code == ErrorCode.UNAVAILABLE
    assert says in error.message


async def test_a_newer_database_is_not_migrated_back_and_says_so(fresh: str) -> None:
    await asyncio.to_thread(migrate, fresh)
    async with Database(fresh) as database:
        await database.one("UPDATE integrations.alembic_version SET version_num = '9999'", {})
    with pytest.raises(IntegrationError) as refused:
        await asyncio.to_thread(migrate, fresh)
    assert "newer" in refused.value.message


async def test_a_server_that_is_not_there_is_unavailable_without_its_url() -> None:
    url = "postgresql://someone:planted-password@127.0.0.1:1/nothing"
    with pytest.raises(IntegrationError) as refused:
        await asyncio.to_thread(migrate, url)
    assert refused.value.code == ErrorCode.UNAVAILABLE
    assert "planted" not in f"{refused.value} {refused.value.details}"


async def test_a_pool_without_a_server_is_unavailable_without_its_url() -> None:
    url = "postgresql://someone:planted-password@127.0.0.1:1/nothing"
    async with Database(url, patience=timedelta(milliseconds=200)) as database:
        with pytest.raises(IntegrationError) as refused:
            await check_schema_version(database)
    assert refused.value.code == ErrorCode.UNAVAILABLE
    assert "planted" not in f"{refused.value} {refused.value.details} {refused.value.__cause__}"


@pytest.mark.parametrize("url", ["not a url", "postgresql://h/d?no_such_option=planted-password"])
async def test_a_url_that_libpq_does_not_read_is_refused_without_a_quote(url: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        await asyncio.to_thread(migrate, url)
    assert "planted" not in f"{refused.value} {refused.value.details}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "version", "says"),
    [("worker", "0000", "`integrations migrate`"), ("gateway", "9999", "deploy the newer program")],
)
async def test_neither_worker_nor_gateway_starts_on_another_version(
    stack: Stack, fresh: str, process: str, version: str, says: str
) -> None:
    await asyncio.to_thread(migrate, fresh)
    async with Database(fresh) as database:
        await database.one("UPDATE integrations.alembic_version SET version_num = %(to)s", {"to": version})
    environment = {**os.environ, **stack.environment, "INTEGRATIONS_DATABASE_URL": fresh}
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", f"integration_service.{process}"),
        env={**environment, "INTEGRATIONS_GATEWAY_LISTEN": "127.0.0.1:0", "INTEGRATIONS_WORKER_LISTEN": "127.0.0.1:0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(started.communicate(), 60)
    assert started.returncode not in (0, None)
    assert f"the database is at {version}" in output.decode()
    assert says in output.decode().splitlines()[-1]
