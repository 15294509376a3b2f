"""A database of a test's own in the stack's Postgres, and logins that are members of our roles."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from integration_service.devstack.stack import Stack
from integration_service.storage.migrations import migrate


@dataclass(frozen=True)
class FreshDatabase:
    """`url` is its owner's, `superuser` the cluster's."""

    url: str
    superuser: str

    def as_user(self, name: str, password: str = "secret") -> str:
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=f"{name}:{password}@{parts.hostname}:{parts.port}"))

    @asynccontextmanager
    async def login(self, *roles: str) -> AsyncIterator[str]:
        """URL of a new login that is a member of `integrations_<role>`; gone afterwards, with what it was given."""
        name = f"login_{uuid.uuid4().hex[:10]}"
        async with await psycopg.AsyncConnection.connect(self.superuser, autocommit=True) as connection:
            user = sql.Identifier(name)
            await connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(user))
            for role in roles:
                await connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(f"integrations_{role}"), user))
            try:
                yield self.as_user(name)
            finally:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [name]
                )
                await connection.execute(sql.SQL("DROP OWNED BY {}").format(user))
                await connection.execute(sql.SQL("DROP ROLE {}").format(user))


@asynccontextmanager
async def fresh_database(stack: Stack, *, migrated: bool = True) -> AsyncIterator[FreshDatabase]:
    """A database that the stack's role owns; gone afterwards."""
    url = urlsplit(stack.ready.database)
    # Only the superuser makes databases; its password lies beside the keyring, in the stack's data directory.
    kept = json.loads((Path(stack.environment["INTEGRATIONS_KEYRING"]).parent / "database.json").read_text())
    admin = urlunsplit(url._replace(netloc=f"postgres:{kept['superuser']}@{url.hostname}:{url.port}", path="/postgres"))
    text = f"fresh_{uuid.uuid4().hex[:12]}"
    name = sql.Identifier(text)
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
        await connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(name, sql.Identifier(url.username or ""))
        )
        try:
            own = urlunsplit(url._replace(path=f"/{text}"))
            if migrated:
                await asyncio.to_thread(migrate, own)
            yield FreshDatabase(own, urlunsplit(urlsplit(admin)._replace(path=f"/{text}")))
        finally:
            await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
