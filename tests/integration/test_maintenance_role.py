"""`MaintainStorage` by a login that owns nothing: its steps are done, and its leave goes no further."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from temporalio.testing import ActivityEnvironment

from integration_service.activities.maintenance import MaintenanceActivities
from integration_service.devstack.stack import Stack
from integration_service.storage.audit_chain import AuditChain
from integration_service.storage.audit_months import after, month_of
from integration_service.storage.audit_partitions import AuditPartitions
from integration_service.storage.audit_stats import AuditStats
from integration_service.storage.database import Database
from integration_service.storage.decrypt_log import DecryptLog
from integration_service.storage.leftovers import Leftovers
from integration_service.storage.upstream_health import BreakerRows
from tests.audit_rows import Trail
from tests.fresh_database import FreshDatabase, fresh_database

NOW = datetime.now(UTC)
THIS = month_of(NOW)
OTHERS = ("registry", "worker", "gateway", "audit_writer", "audit_reader")


@pytest.fixture
async def place(stack: Stack) -> AsyncIterator[FreshDatabase]:
    async with fresh_database(stack) as fresh:
        yield fresh


async def test_every_step_is_done_by_a_login_that_owns_nothing(place: FreshDatabase) -> None:
    async with (
        place.login("worker", "maintenance") as login,
        Database(login) as database,
        Database(place.url) as owner,
    ):
        trail = Trail(place.url, owner)
        await trail.run(f"DROP TABLE audit.executions_{THIS:%Y_%m}")
        await trail.record(*[NOW] * 5, after(THIS, -3), after(THIS, -40))
        for statement in (
            "INSERT INTO audit.alerts (kind, sentence, recorded_at) VALUES ('old', 'o', now() - interval '41 days')",
            "INSERT INTO integrations.send_intents SELECT gen_random_uuid(), now() - interval '91 days'",
        ):
            await trail.run(statement)
        steps = MaintenanceActivities(
            partitions=AuditPartitions(database),
            chain=AuditChain(database, settled_after=timedelta(0)),
            stats=AuditStats(database),
            leftovers=Leftovers(database),
            breakers=BreakerRows(database),
            decrypts=DecryptLog(database),
            retention=timedelta(days=120),
        )
        prepared = await ActivityEnvironment().run(steps.prepare)
        assert prepared.missed == [f"{after(THIS, -3):%Y-%m}", f"{THIS:%Y-%m}"]
        assert (await ActivityEnvironment().run(steps.seal)).rows == 7
        steps._retention = timedelta(days=40)  # a seal announces before anything goes
        await trail.record(NOW)
        assert (await ActivityEnvironment().run(steps.seal)).rows == 1
        assert (await ActivityEnvironment().run(steps.drop)).dropped == [f"executions_{after(THIS, -3):%Y_%m}"]
        await ActivityEnvironment().run(steps.prepare)
        swept = await ActivityEnvironment().run(steps.sweep)
        assert swept.deleted["integrations.send_intents"] == 1
        layout = await trail.layout()
        assert layout["executions_default"] == 0
        assert layout[f"executions_{THIS:%Y_%m}"] == 6
        alerts = await owner.all("SELECT kind FROM audit.alerts")
        assert [row["kind"] for row in alerts] == ["partition_missing"]
        tables = await owner.all("SELECT DISTINCT tableowner AS owner FROM pg_tables WHERE schemaname = 'audit'")
        assert len(tables) == 1  # what the maintainer had made belongs to the owner


async def test_the_functions_reach_no_table_but_the_logs_months(place: FreshDatabase) -> None:
    month = f"executions_{THIS:%Y_%m}"
    async with (
        place.login("maintenance") as login,
        await psycopg.AsyncConnection.connect(login, autocommit=True) as connection,
    ):
        for function, wrong in (
            ("detach_month", ("executions_default", "seals", "decrypts", "executions", "pg_class", "no_such")),
            ("drop_detached", (month, "executions_default", "executions", "seals", "alerts", "executions_pkey")),
        ):
            for name in wrong:
                with pytest.raises(psycopg.errors.InvalidParameterValue):
                    await connection.execute(f"SELECT audit.{function}(%s)".encode(), (name,))
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            await connection.execute("SELECT audit.make_month(now())")
        for statement in (
            f"DROP TABLE audit.{month}",
            f"SELECT 1 FROM audit.{month}",
            f"ALTER TABLE audit.executions DETACH PARTITION audit.{month}",
            "CREATE TABLE audit.another (a integer)",
            "DELETE FROM audit.executions",
            "DELETE FROM audit.seals",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement.encode())
        # A function of the caller's own, in a schema that the caller puts first, is not what runs as the owner.
        await connection.execute(
            """CREATE FUNCTION pg_temp.month_table(timestamptz) RETURNS name LANGUAGE sql AS
               $$ SELECT 'seals'::name $$"""
        )
        await connection.execute("SET search_path = pg_temp, audit")
        await connection.execute("SELECT audit.make_month(%s)", (after(THIS, 5),))
        cursor = await connection.execute("SELECT to_regclass(%s)", (f"audit.executions_{after(THIS, 5):%Y_%m}",))
        assert await cursor.fetchone() != (None,)


async def test_nothing_temporary_runs_as_the_owner(place: FreshDatabase) -> None:
    """A session's own temporary tables come first in every search path that does not name them: a view in place of a
    catalog's table would have its functions run as whoever owns the log and the vault."""
    async with (
        place.login("maintenance") as login,
        await psycopg.AsyncConnection.connect(login, autocommit=True) as connection,
    ):
        mine = psycopg.conninfo.conninfo_to_dict(login)["user"]
        for statement in (
            f"""CREATE FUNCTION pg_temp.mine() RETURNS name LANGUAGE plpgsql AS $$
                BEGIN
                    EXECUTE 'GRANT USAGE ON SCHEMA vault TO {mine}';
                    EXECUTE 'GRANT SELECT ON vault.credentials TO {mine}';
                    RETURN 'seq';
                END $$""",
            """CREATE TEMP VIEW pg_attribute AS
               SELECT attrelid, attnum, attisdropped, pg_temp.mine() AS attname FROM pg_catalog.pg_attribute""",
            "GRANT SELECT ON pg_attribute TO PUBLIC",
            "SELECT audit.copy_to_months('{}', 0, 0, NULL, NULL)",
        ):
            await connection.execute(statement.encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("SELECT * FROM vault.credentials")
        cursor = await connection.execute(
            """SELECT p.oid::regprocedure::text, array_to_string(p.proconfig, ' ')
                 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                WHERE n.nspname IN ('integrations', 'vault', 'audit')"""
        )
        for name, config in await cursor.fetchall():
            assert "search_path=pg_catalog, pg_temp" in str(config), name


@pytest.mark.parametrize("role", OTHERS)
async def test_nobody_else_may_call_them(place: FreshDatabase, role: str) -> None:
    async with (
        place.login(role) as login,
        await psycopg.AsyncConnection.connect(place.url) as owner,
    ):
        cursor = await owner.execute(
            """SELECT p.oid::regprocedure::text, p.proconfig::text, has_function_privilege(%s, p.oid, 'EXECUTE')
                 FROM pg_proc p WHERE p.pronamespace = 'audit'::regnamespace AND p.prosecdef""",
            (psycopg.conninfo.conninfo_to_dict(login)["user"],),
        )
        found = await cursor.fetchall()
        assert len(found) == 11
        for name, config, allowed in found:
            assert not allowed, name
            assert "search_path=pg_catalog, pg_temp" in config.replace('"', ""), name
