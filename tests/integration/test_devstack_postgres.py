"""The embedded Postgres, for real: closed to others, and its data outlive every way of dying."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import psycopg
import pytest

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack.claims import is_held, read_pid
from integration_service.devstack.data_dir import DataDir, open_data_dir
from integration_service.devstack.database import accepts_role, database_url, provide_database
from integration_service.devstack.placing import remove_external
from integration_service.devstack.ports import claim_ports
from integration_service.devstack.postgres import NAME, Cluster
from integration_service.devstack.supervisor import Supervisor
from integration_service.devstack.waiting import until

pytestmark = pytest.mark.slow

WITHIN = timedelta(seconds=60)


@pytest.fixture
def data_dir(tmp_path: Path) -> AsyncIterator[DataDir]:
    """As root below a folder that Postgres's user cannot enter."""
    data_dir = open_data_dir(tmp_path / "with space, 'quote' and ?#%41ü")
    data_dir.prepare_folders()
    yield data_dir
    remove_external(data_dir.path)


@asynccontextmanager
async def running(data_dir: DataDir, port: int | None = None) -> AsyncIterator[tuple[Cluster, Supervisor]]:
    cluster = Cluster.open(data_dir, port or claim_ports({"--postgres-port": 0})["--postgres-port"])
    supervisor = Supervisor(data_dir)
    try:
        await cluster.start(supervisor, lambda _: None)
        await supervisor.while_alive(provide_database(cluster), WITHIN)
        yield cluster, supervisor
    finally:
        await supervisor.stop(NAME)
    assert not is_held(data_dir.claim(NAME))


def postmaster(data_dir: DataDir) -> psutil.Process:
    pid = read_pid(data_dir.claim(NAME))
    assert pid is not None
    return psutil.Process(pid)


def rows(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT x FROM kept ORDER BY x").fetchall()


def insert(url: str, value: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (x int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])


async def test_its_data_outlive_restarts_and_kill_9(data_dir: DataDir) -> None:
    async with running(data_dir) as (cluster, _):
        insert(database_url(cluster), 1)
    async with running(data_dir, cluster.port) as (again, supervisor):
        assert database_url(again) == database_url(cluster)
        insert(database_url(cluster), 2)

        supervisor.keep()
        killed = postmaster(data_dir)
        killed.kill()

        async def is_back() -> bool:
            return read_pid(data_dir.claim(NAME)) not in {None, killed.pid} and await accepts_role(cluster)

        async with asyncio.timeout(30):
            await until(is_back)
        assert rows(database_url(cluster)) == [(1,), (2,)]


async def test_it_is_closed_to_others_and_durable(data_dir: DataDir) -> None:
    async with running(data_dir) as (cluster, _):
        listening = {c.laddr.ip for c in postmaster(data_dir).net_connections("all") if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(host="127.0.0.1", port=cluster.port, user="postgres", dbname="postgres", password="x")
        with psycopg.connect(database_url(cluster)) as connection:

            def value(query: str) -> object:
                row = connection.execute(query).fetchone()
                assert row is not None
                return row[0]

            for setting, expected in {
                "fsync": "on",
                "synchronous_commit": "on",
                "password_encryption": "scram-sha-256",
                "max_connections": "200",
                "server_encoding": "UTF8",
            }.items():
                assert value(f"SHOW {setting}") == expected, setting
            assert value("SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"
            assert value("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()") == (
                "integrations"
            )
            assert (
                value(
                    "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls OR rolreplication"
                    " FROM pg_roles WHERE rolname = current_user"
                )
                is False
            )


async def test_files_are_private_and_passwords_stay_in_theirs(data_dir: DataDir) -> None:
    async with running(data_dir) as (cluster, _):
        command = " ".join(postmaster(data_dir).cmdline())
        assert cluster.data.stat().st_mode & 0o7777 == 0o700
        assert cluster.data.stat().st_uid == postmaster(data_dir).uids().real
        assert postmaster(data_dir).uids().real != 0
    assert data_dir.database_passwords.stat().st_mode & 0o7777 == 0o600
    places = [command, *(log.read_text() for log in data_dir.log("x").parent.iterdir())]
    for password in (cluster.passwords.superuser, cluster.passwords.role):
        assert not [place for place in places if password in place]
    assert not cluster.data.with_name("postgres-password").exists()


async def test_what_an_interrupted_start_left_is_no_hindrance(data_dir: DataDir) -> None:
    cluster = Cluster.open(data_dir, 1)
    cluster.data.with_name("postgres-password").write_text("half")
    unfinished = cluster.data.with_name("postgres-unfinished")
    unfinished.mkdir()
    (unfinished / "PG_VERSION").touch()
    async with running(data_dir) as (cluster, _):
        insert(database_url(cluster), 1)
    # A pid that has since become another process of the same user.
    stranger = os.getpid()
    (cluster.data / "postmaster.pid").write_text(f"{stranger}\n{cluster.data}\n0\n1\n\n127.0.0.1\n0 0\nready\n")
    async with running(data_dir) as (cluster, _):
        assert rows(database_url(cluster)) == [(1,)]


async def test_data_whose_passwords_are_gone_are_kept_aside(data_dir: DataDir) -> None:
    async with running(data_dir) as (cluster, _):
        insert(database_url(cluster), 1)
    data_dir.database_passwords.unlink()
    async with running(data_dir) as (cluster, _):
        with pytest.raises(psycopg.errors.UndefinedTable):
            rows(database_url(cluster))
    assert len(list(cluster.data.parent.glob("postgres-orphaned-*/PG_VERSION"))) == 1


async def test_damaged_passwords_are_named(data_dir: DataDir) -> None:
    data_dir.database_passwords.write_text("{")
    with pytest.raises(IntegrationError, match=r"database\.json is damaged"):
        Cluster.open(data_dir, 1)


async def test_a_server_that_does_not_start_says_why(data_dir: DataDir) -> None:
    async with running(data_dir) as (cluster, _):
        pass
    (cluster.data / "postgresql.auto.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(IntegrationError) as caught:
        async with running(data_dir):
            pass
    assert caught.value.code == ErrorCode.UNAVAILABLE
    assert "postgres ended while starting (exit code 1)" in caught.value.message
    assert "no_such_setting" in caught.value.message
    assert "\n" not in caught.value.message


async def test_the_next_start_waits_for_the_backends_of_a_killed_postmaster(data_dir: DataDir) -> None:
    async with running(data_dir) as (cluster, supervisor):
        supervisor.keep()
        with psycopg.connect(database_url(cluster)) as busy:
            backend = psutil.Process(busy.info.backend_pid)
            backend.send_signal(signal.SIGSTOP)  # it cannot notice its postmaster's death
            try:
                postmaster(data_dir).kill()
                await asyncio.sleep(0.6)  # longer than the delay of a restart
                assert is_held(data_dir.claim(NAME))
                assert not await accepts_role(cluster)
            finally:
                backend.send_signal(signal.SIGCONT)

            async def is_back() -> bool:
                return await accepts_role(cluster)

            async with asyncio.timeout(10):
                await until(is_back)
        assert "shared memory" not in data_dir.log(NAME).read_text()


async def test_a_stop_right_after_the_start_is_not_lost(data_dir: DataDir) -> None:
    async with running(data_dir) as (cluster, _):
        pass
    supervisor = Supervisor(data_dir)
    for _ in range(5):
        await cluster.start(supervisor, lambda _: None)
        async with asyncio.timeout(10):  # less than its grace
            await supervisor.stop(NAME)
