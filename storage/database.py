"""The one way to Postgres: a pool, opened and closed by its owner, with driver errors translated once."""

from __future__ import annotations

import asyncio
import logging
import select
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Self

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.round_trip import SET_SCOPE, rows_in_scope

Connection = psycopg.AsyncConnection[DictRow]

# One statement never outlives an activity's patience, and a peer that is gone is noticed within seconds.
_OPTIONS = {
    "application_name": "integration-service",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "client_encoding": "UTF8",
    "options": "-c statement_timeout=15000 -c timezone=UTC",
}
# The pool retries on its own and says so at WARNING for each try; callers already get UNAVAILABLE.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

_TRANSLATED = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # a standby that was the primary a moment ago
    PoolTimeout,
    psycopg.DataError,
)
_scope: ContextVar[str | None] = ContextVar("scope", default=None)


@contextmanager
def within_scope(scope: str) -> Iterator[None]:
    """Inside, `one`, `all` and `transaction` tell the database on whose behalf they are: its row-level security then
    lets no row of another scope through, whatever a statement asks. Outside, statements see every scope.

    It costs no round trip, lasts for one transaction, and so is safe behind a pooler.
    """
    if not scope:
        raise ValueError("a scope has a name: without one the database shows every scope")
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


class Database:
    """A pool of autocommit connections to one database.

    `url` is a libpq URL. A server that is down, or a pool without a free connection, raises IntegrationError
    UNAVAILABLE; nothing of the URL stands in it.
    """

    def __init__(self, url: str, *, max_connections: int = 20, patience: timedelta = timedelta(seconds=5)) -> None:
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=psycopg.AsyncConnection[DictRow],
            kwargs={"autocommit": True, "row_factory": dict_row, **_OPTIONS},
            min_size=1,
            max_size=max_connections,
            timeout=patience.total_seconds(),
            # The pool is opened by `open`, inside the event loop that uses it.
            open=False,
        )

    async def open(self) -> Self:
        await self._pool.open()
        return self

    async def close(self) -> None:
        await self._pool.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def pool_stats(self) -> dict[str, int]:
        """The pool's own figures, by psycopg's names; asks nobody."""
        return self._pool.get_stats()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection on which each statement is its own transaction: one round trip."""
        try:
            connection = await self._alive()
            try:
                yield connection
            finally:
                await self._put_back(connection)
        except _TRANSLATED as error:
            raise _translated(error) from None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction that commits when the block ends."""
        scope = _scope.get()
        async with self.connection() as connection, AsyncExitStack() as opened:
            if scope is None:
                await opened.enter_async_context(connection.transaction())
            else:
                async with connection.pipeline():
                    await opened.enter_async_context(connection.transaction())
                    await connection.execute(SET_SCOPE.encode(), {"scope": scope})
            yield connection

    async def one(self, query: str, parameters: dict[str, Any]) -> DictRow | None:
        """The first row of a single statement, or None."""
        rows = await self.all(query, parameters)
        return rows[0] if rows else None

    async def all(self, query: str, parameters: dict[str, Any] | None = None) -> list[DictRow]:
        """Every row of a single statement; none of one that returns none."""
        # Two of these are a third of an attempt's CPU: no context manager that can be spared.
        try:
            connection = await self._alive()
            try:
                if (scope := _scope.get()) is not None:
                    return await rows_in_scope(scope, connection, query, parameters or {})
                cursor = await connection.execute(query.encode(), parameters)
                # Not `description`: that makes an object of each column.
                return await cursor.fetchall() if cursor.rownumber is not None else []
            finally:
                await self._put_back(connection)
        except _TRANSLATED as error:
            raise _translated(error) from None

    async def _alive(self) -> Connection:
        """One of the pool's, whoever takes it puts it back."""
        connection = await self._pool.getconn()
        while _is_dead(connection):
            # Put back closed, so that the pool makes another in its place.
            await connection.close()
            await self._put_back(connection)
            connection = await self._pool.getconn()
        return connection

    async def _put_back(self, connection: Connection) -> None:
        # Where others wait for one it waits for them; cancelled there, the pool would never see it again.
        returned = _begun(self._pool.putconn(connection))
        if not returned.done():
            await asyncio.shield(returned)
        returned.result()


def _begun(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that has come to its first wait already, or to its end (Python 3.12); before, one that is yet to begin."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


def _is_dead(connection: Connection) -> bool:
    """Whether an idle connection's server has gone, without asking the server: nothing is due to arrive on it, so
    anything to read is its end. After a restart of Postgres every pooled connection is such a one."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _translated(error: Exception) -> IntegrationError:
    # The driver's text may name host and user; the class says all that a caller can act on.
    if isinstance(error, psycopg.DataError):
        return IntegrationError(ErrorCode.VALIDATION_ERROR, "a value that the database cannot store")
    return IntegrationError(ErrorCode.UNAVAILABLE, "the database does not answer")
