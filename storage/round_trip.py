"""A statement on behalf of a scope: one packet there, one back.

psycopg's pipeline makes one transaction of both commands too. But it sends each as it comes, then the Sync, then a
Flush, and both ends wake for each: more CPU than all else that a statement costs. Here libpq keeps them until all is
said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg import generators
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import DictRow

SET_SCOPE = "SELECT set_config('integrations.scope', %(scope)s, true)"

_PLACEHOLDER = re.compile(r"%(?:\((\w+)\)s|%)")
_Key = tuple[bytes, tuple[int, ...]]
"""A statement and the types of its parameters: with a larger number it is another one to Postgres."""
_kept: WeakKeyDictionary[psycopg.AsyncConnection[Any], dict[_Key, bytes]] = WeakKeyDictionary()
"""The names of what the server keeps prepared for a connection. The statements are the code's own, some dozens."""
_numbers = count()


class _Statement(NamedTuple):
    text: bytes
    types: tuple[int, ...]
    values: Sequence[Buffer | None]
    formats: Sequence[Format] | None


async def rows_in_scope(
    scope: str, connection: psycopg.AsyncConnection[Any], query: str, parameters: Mapping[str, Any]
) -> list[DictRow]:
    """Every row of a single statement, in a transaction of its own that tells the database the scope first.

    `query` writes its parameters `%(name)s`, and a percent sign `%%`. The connection is nobody else's meanwhile, and
    in no transaction. Raises psycopg's errors, as its cursors do.
    """
    text, names = _numbered(query)
    transformer = Transformer(connection)
    values = transformer.dump_sequence([parameters[name] for name in names], [PyFormat.AUTO] * len(names))
    telling = _Statement(_numbered(SET_SCOPE)[0], (0,), [scope.encode()], None)
    asking = _Statement(text, transformer.types or (), values, transformer.formats)
    kept = _kept.setdefault(connection, {})
    try:
        result = await connection.wait(_exchange(connection.pgconn, (telling, asking), kept))
    except psycopg.errors.InvalidSqlStatementName:
        # Deallocated meanwhile: by psycopg after a rollback, or by a pooler. Nothing of the transaction is left.
        kept.clear()
        result = await connection.wait(_exchange(connection.pgconn, (telling, asking), kept))
    if result.status != ExecStatus.TUPLES_OK:
        return []
    transformer.set_pgresult(result)
    columns = [(result.fname(number) or b"").decode() for number in range(result.nfields)]
    return transformer.load_rows(0, result.ntuples, lambda row: dict(zip(columns, row, strict=True)))


@lru_cache(maxsize=1000)
def _numbered(query: str) -> tuple[bytes, tuple[str, ...]]:
    """A statement as Postgres reads it, with `$1` for its first parameter, and the parameters' names in that order."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        name = found[1]
        return f"${numbers.setdefault(name, len(numbers) + 1)}" if name else "%"

    return _PLACEHOLDER.sub(number, query).encode(), tuple(numbers)


def _exchange(pgconn: PGconn, statements: Sequence[_Statement], kept: dict[_Key, bytes]) -> PQGen[PGresult]:
    """The last statement's result. Raises the first error, once everything is read and the connection good again."""
    pgconn.enter_pipeline_mode()
    try:
        heard: list[tuple[_Key, bytes] | None] = []
        for text, types, values, formats in statements:
            name = kept.get((text, types))
            if name is None:
                name = b"integrations_%d" % next(_numbers)
                pgconn.send_prepare(name, text, types)
                heard.append(((text, types), name))
            pgconn.send_query_prepared(name, values, formats)
            heard.append(None)
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        error: psycopg.Error | None = None
        for new in heard:
            result = yield from _next(pgconn)
            if result.status == ExecStatus.FATAL_ERROR:
                error = error or psycopg.errors.error_from_result(result)
            elif new is not None and result.status == ExecStatus.COMMAND_OK:
                kept.update([new])
        last = result
        yield from _next(pgconn)  # the Sync's
    finally:
        if pgconn.status == ConnStatus.OK:
            pgconn.exit_pipeline_mode()
    if error is not None:
        raise error
    return last


def _next(pgconn: PGconn) -> PQGen[PGresult]:
    results: list[PGresult] = yield from generators.fetch_many(pgconn)
    if not results:
        raise psycopg.OperationalError("the connection is lost")
    return results[0]
