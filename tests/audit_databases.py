"""Databases for one test each, copied from one that was migrated: cheap enough to touch every row of."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from integration_service.devstack.stack import Stack
from integration_service.storage.migrations import migrate


class AuditDatabases:
    """Makes databases that the service's role owns, by the stack's superuser."""

    def __init__(self, stack: Stack) -> None:
        self._url = urlsplit(stack.ready.database)
        # Only the superuser makes databases; its password lies beside the keyring, in the stack's data directory.
        kept = json.loads((Path(stack.environment["INTEGRATIONS_KEYRING"]).parent / "database.json").read_text())
        self._password: str = kept["superuser"]
        self._migrated: str | None = None

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """The URL of a new database at this version; it is gone afterwards."""
        if self._migrated is None:
            template = f"migrated_{uuid.uuid4().hex[:12]}"
            await self._make(template, "template1")
            await asyncio.to_thread(migrate, self._url_of(template))
            self._migrated = template
        name = f"audit_{uuid.uuid4().hex[:12]}"
        await self._make(name, self._migrated)
        try:
            yield self._url_of(name)
        finally:
            await self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _url_of(self, name: str) -> str:
        return urlunsplit(self._url._replace(path=f"/{name}"))

    async def _make(self, name: str, template: str) -> None:
        owner = sql.Identifier(self._url.username or "")
        await self._run(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
                sql.Identifier(name), owner, sql.Identifier(template)
            )
        )

    async def _run(self, statement: sql.Composed) -> None:
        async with await psycopg.AsyncConnection.connect(
            host=self._url.hostname,
            port=self._url.port,
            user="postgres",
            password=self._password,
            dbname="postgres",
            autocommit=True,
        ) as connection:
            await connection.execute(statement)
