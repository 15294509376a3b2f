"""The role and the database that the service gets in the embedded Postgres."""

from __future__ import annotations

import psycopg
from psycopg import sql

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack.ports import HOST
from integration_service.devstack.postgres import SUPERUSER, Cluster
from integration_service.devstack.waiting import until

ROLE = "integrations"
DATABASE = "integrations"
# Only the superuser makes roles; what each may do is for the migrations to say.
_GROUPS = ("owner", "registry", "worker", "gateway", "audit_writer", "audit_reader", "maintenance")
_ANSWER_S = 5


def database_url(cluster: Cluster) -> str:
    """libpq URL of the role that owns the database."""
    return f"postgresql://{ROLE}:{cluster.passwords.role}@{HOST}:{cluster.port}/{DATABASE}"


async def provide_database(cluster: Cluster) -> None:
    """Waits for the server, then makes role and database what they should be, whatever was there before."""

    async def accepts_superuser() -> bool:
        return await _accepts(cluster, SUPERUSER, cluster.passwords.superuser, "postgres")

    await until(accepts_superuser)
    async with await _connect(cluster, SUPERUSER, cluster.passwords.superuser, "postgres") as connection:
        # Computed here, so that no log of the server ever holds the password.
        verifier = connection.pgconn.encrypt_password(
            cluster.passwords.role.encode(), ROLE.encode(), b"scram-sha-256"
        ).decode()
        role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
        found = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE])
        if await found.fetchone() is None:
            await connection.execute(sql.SQL("CREATE ROLE {}").format(role))
        await connection.execute(
            sql.SQL(
                "ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {}"
            ).format(role, sql.Literal(verifier))
        )
        for group in _GROUPS:
            name = f"integrations_{group}"
            found = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
            if await found.fetchone() is None:
                await connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
        found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if await found.fetchone() is None:
            await connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))


async def accepts_role(cluster: Cluster) -> bool:
    """Whether the service's role can connect to its database."""
    return await _accepts(cluster, ROLE, cluster.passwords.role, DATABASE)


async def _accepts(cluster: Cluster, user: str, password: str, database: str) -> bool:
    try:
        async with await _connect(cluster, user, password, database) as connection:
            await connection.execute("SELECT 1")
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise IntegrationError(
                ErrorCode.UNAVAILABLE, f"{cluster.data} does not take the password of {user}"
            ) from None
        return False
    return True


async def _connect(
    cluster: Cluster, user: str, password: str, database: str
) -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(
        host=HOST,
        port=cluster.port,
        user=user,
        password=password,
        dbname=database,
        sslmode="disable",  # else libpq would look at the user's PGSSLMODE
        connect_timeout=_ANSWER_S,
        autocommit=True,
    )
