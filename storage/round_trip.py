"""A statement on behalf of a scope: one packet there, one back.

psycopg's pipeline makes one transaction of both commands too. But it sends each as it comes, then the Sync, then a
Flush, and both ends wake for each: more CPU than all else that a statement costs. Here libpq keeps them until all is
said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg import abc, generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import DictRow
from psycopg.waiting import WAIT_R

SET_SCOPE = "SELECT set_config('integrations.scope', %(scope)s, true)"

KEPT = 200
"""So many statements a server keeps prepared for a connection, then it forgets them all. The service has dozens."""

_PLACEHOLDER = re.compile(r"%(?:\((\w+)\)s|%)")
_Key = tuple[bytes, tuple[int, ...]]
"""A statement and the types of its parameters: with a larger number it is another one to Postgres."""
_kept: WeakKeyDictionary[psycopg.AsyncConnection[Any], dict[_Key, bytes]] = WeakKeyDictionary()
"""The names of what the server keeps prepared for a connection."""
_STALE = (
    psycopg.errors.InvalidSqlStatementName,  # deallocated meanwhile: by psycopg after a rollback, or by a pooler
    psycopg.errors.DuplicatePreparedStatement,
    psycopg.errors.FeatureNotSupported,  # a table has got another shape
)


class _Statement(NamedTuple):
    text: bytes
    types: tuple[int, ...]
    values: Sequence[abc.Buffer | None]
    formats: Sequence[Format] | None


async def rows_in_scope(
    scope: str, connection: psycopg.AsyncConnection[Any], query: str, parameters: Mapping[str, Any]
) -> list[DictRow]:
    """Every row of a single statement, in a transaction of its own that tells the database the scope first.

    `query` writes its parameters `%(name)s`, and a percent sign `%%`. The connection is nobody else's meanwhile, and
    in no transaction. Raises psycopg's errors, as its cursors do; the connection is then good, or closed.
    """
    transformer = Transformer(connection)
    telling = _telling(scope)
    asking = _statement(transformer, query, parameters)
    kept = _kept.setdefault(connection, {})
    if len(kept) >= KEPT:
        await _forget(connection, kept)
    try:
        result = await connection.wait(_exchange(connection.pgconn, (telling, asking), kept))
    except _STALE:
        # Nothing of the transaction is left.
        await _forget(connection, kept)
        result = await connection.wait(_exchange(connection.pgconn, (telling, asking), kept))
    if result.status != ExecStatus.TUPLES_OK:
        return []
    transformer.set_pgresult(result)
    columns = [(result.fname(number) or b"").decode() for number in range(result.nfields)]
    return transformer.load_rows(0, result.ntuples, lambda row: dict(zip(columns, row, strict=True)))


async def _forget(connection: psycopg.AsyncConnection[Any], kept: dict[_Key, bytes]) -> None:
    kept.clear()
    await connection.execute(b"DEALLOCATE ALL")  # psycopg, seeing it, forgets its own too


def _telling(scope: str) -> _Statement:
    """What a cursor would send, without what finds it out."""
    value = scope.encode()
    if b"\0" in value:
        raise psycopg.DataError("text of Postgres holds no NUL")  # libpq would take what stands before it
    return _Statement(_numbered(SET_SCOPE)[0], (0,), (value,), (Format.TEXT,))


def _statement(transformer: abc.Transformer, query: str, parameters: Mapping[str, Any]) -> _Statement:
    text, names = _numbered(query)
    values = transformer.dump_sequence([parameters[name] for name in names], [PyFormat.AUTO] * len(names))
    return _Statement(text, transformer.types or (), values, transformer.formats)


@lru_cache(maxsize=1000)
def _numbered(query: str) -> tuple[bytes, tuple[str, ...]]:
    """A statement as Postgres reads it, with `$1` for its first parameter, and the parameters' names in that order."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        name = found[1]
        return f"${numbers.setdefault(name, len(numbers) + 1)}" if name else "%"

    return _PLACEHOLDER.sub(number, query).encode(), tuple(numbers)


def _name(key: _Key) -> bytes:
    """Of its content: whoever else prepares one of this name, through a pooler, prepares the same."""
    return b"integrations_" + sha256(repr(key).encode()).hexdigest()[:32].encode()


def _exchange(pgconn: PGconn, statements: Sequence[_Statement], kept: dict[_Key, bytes]) -> abc.PQGen[PGresult]:
    """The last statement's result. Raises the first error, once all is read."""
    error: psycopg.Error | None = None
    try:
        pgconn.enter_pipeline_mode()
        said: list[_Key | None] = []
        for text, types, values, formats in statements:
            key = (text, types)
            name = kept.get(key)
            if name is None:
                name = _name(key)
                pgconn.send_prepare(name, text, types)
                said.append(key)
            pgconn.send_query_prepared(name, values, formats)
            said.append(None)
        pgconn.pipeline_sync()
        if pgconn.flush():
            yield from generators.send(pgconn)
        for new in said:
            if pgconn.is_busy():
                yield from _arrival(pgconn)
            result = _next(pgconn)
            if result.status == ExecStatus.FATAL_ERROR:
                error = error or psycopg.errors.error_from_result(result)
            elif new is not None and result.status == ExecStatus.COMMAND_OK:
                kept[new] = _name(new)
            pgconn.get_result()  # the None that ends a command's results
        if pgconn.is_busy():
            yield from _arrival(pgconn)
        end = _next(pgconn)
        if end.status == ExecStatus.FATAL_ERROR:  # at the commit: what was deferred until then
            error = error or psycopg.errors.error_from_result(end)
            pgconn.get_result()
            yield from _arrival(pgconn)
            _next(pgconn)
        pgconn.exit_pipeline_mode()
    except BaseException as broken:
        pgconn.finish()
        if error is not None and isinstance(broken, psycopg.Error):
            raise error from None
        raise
    if error is not None:
        raise error
    return result


def _arrival(pgconn: PGconn) -> abc.PQGen[None]:
    """Until a result is there whole. Mostly all of them come with the first."""
    while pgconn.is_busy():
        yield WAIT_R
        pgconn.consume_input()


def _next(pgconn: PGconn) -> PGresult:
    result = pgconn.get_result()
    if result is None:
        raise psycopg.OperationalError("the connection is lost")
    return result
