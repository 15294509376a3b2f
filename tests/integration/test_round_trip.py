"""A statement on behalf of a scope, against what psycopg's own cursor makes of the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import dict_row

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack.stack import Stack
from integration_service.storage.database import Connection, Database, within_scope
from integration_service.storage.round_trip import KEPT, _kept, rows_in_scope

_SEEN = "SELECT current_setting('integrations.scope', true) AS scope"
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    st.binary(),
    st.datetimes(timezones=st.just(UTC)),
    st.uuids(),
    st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))),
)


@pytest.fixture
async def connection(stack: Stack) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(
        stack.ready.database, autocommit=True, row_factory=dict_row
    ) as opened:
        yield opened


def _is_good(connection: Connection) -> bool:
    pgconn = connection.pgconn
    return (pgconn.pipeline_status, pgconn.transaction_status) == (PipelineStatus.OFF, TransactionStatus.IDLE)


async def test_the_scope_lasts_for_the_statement(connection: Connection) -> None:
    for scope in ("ada", "bob", 'ada\'s "%(one)s" $1 ü'):
        assert await rows_in_scope(scope, connection, _SEEN, {}) == [{"scope": scope}]
        after = await (await connection.execute(_SEEN.encode())).fetchone()
        assert after is not None
        assert not after["scope"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=_VALUES, two=_VALUES)
async def test_values_and_rows_are_those_of_a_cursor(connection: Connection, one: Any, two: Any) -> None:
    query = "SELECT %(one)s AS one, %(two)s AS two, %(one)s AS again, '100 %%' AS text"
    given_ = {"two": two, "one": one, "unused": object()}
    cursor = await connection.execute(query.encode(), {"one": one, "two": two})
    assert await rows_in_scope("ada", connection, query, given_) == await cursor.fetchall()
    assert _is_good(connection)


async def test_many_and_large_rows(connection: Connection) -> None:
    large = json.dumps({"x": "ü" * 6_000_000})
    query = "SELECT n, %(large)s AS large FROM generate_series(1, %(many)s) AS n"
    rows = await rows_in_scope("ada", connection, query, {"large": large, "many": 3})
    assert rows == [{"n": n, "large": large} for n in (1, 2, 3)]
    rows = await rows_in_scope("ada", connection, query, {"large": None, "many": 20_000})
    assert [row["n"] for row in rows] == list(range(1, 20_001))


async def test_a_statement_without_rows_gives_none(connection: Connection) -> None:
    await connection.execute(b"CREATE TEMPORARY TABLE seen (at timestamptz)")
    assert await rows_in_scope("ada", connection, "INSERT INTO seen VALUES (%(at)s)", {"at": datetime.now(UTC)}) == []
    assert await rows_in_scope("ada", connection, "SELECT FROM seen WHERE at IS NULL", {}) == []
    assert await rows_in_scope("ada", connection, "SELECT count(*) AS n FROM seen", {}) == [{"n": 1}]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("SELEC 1", psycopg.errors.SyntaxError),
        ("SELECT 1 / %(zero)s", psycopg.errors.DivisionByZero),
        ("SELECT %(zero)s::int::text::uuid", psycopg.errors.InvalidTextRepresentation),
        ("INSERT INTO once SELECT 1 FROM generate_series(1, 2)", psycopg.errors.UniqueViolation),
    ],
)
async def test_an_error_undoes_the_statement_and_leaves_the_connection(
    connection: Connection, query: str, error: type[psycopg.Error]
) -> None:
    await connection.execute(b"CREATE TEMPORARY TABLE once (n int PRIMARY KEY)")
    for _ in range(3):
        with pytest.raises(error):
            await rows_in_scope("ada", connection, query, {"zero": 0})
        assert _is_good(connection)
        assert await rows_in_scope("bob", connection, _SEEN, {}) == [{"scope": "bob"}]
    assert await rows_in_scope("ada", connection, "SELECT count(*) AS n FROM once", {}) == [{"n": 0}]


async def test_an_error_at_the_commit_is_the_statements(connection: Connection) -> None:
    await connection.execute(b"CREATE TEMPORARY TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await rows_in_scope("ada", connection, "INSERT INTO late VALUES (1), (1) RETURNING n", {})
    assert _is_good(connection)
    assert await rows_in_scope("ada", connection, "SELECT n FROM late", {}) == []


@pytest.mark.parametrize("scope", ["ada\0evil", "\0"])
async def test_a_scope_is_taken_whole_or_not_at_all(connection: Connection, scope: str) -> None:
    with pytest.raises(psycopg.DataError):
        await rows_in_scope(scope, connection, _SEEN, {})
    assert _is_good(connection)


def test_a_scope_has_a_name() -> None:
    with pytest.raises(ValueError, match="scope has a name"), within_scope(""):
        pass


async def test_what_cannot_be_read_to_its_end_closes_the_connection(connection: Connection) -> None:
    with pytest.raises(psycopg.Error):
        await rows_in_scope("ada", connection, "COPY (SELECT 1) TO STDOUT", {})
    assert connection.closed


async def test_a_parameter_that_is_missing_is_told_before_anything_is_sent(connection: Connection) -> None:
    with pytest.raises(KeyError, match="absent"):
        await rows_in_scope("ada", connection, "SELECT %(absent)s", {})
    assert _is_good(connection)


@pytest.mark.parametrize("forget", [b"DEALLOCATE ALL", b"DISCARD ALL"])
async def test_prepared_statements_that_are_gone_are_prepared_again(connection: Connection, forget: bytes) -> None:
    query = "SELECT %(n)s::int AS n"
    for n in range(3):
        assert await rows_in_scope("ada", connection, query, {"n": n}) == [{"n": n}]
        await connection.execute(forget)


async def test_psycopg_forgets_them_all_after_a_rollback(connection: Connection) -> None:
    query = "SELECT count(*) AS n FROM pg_prepared_statements WHERE name LIKE %(ours)s"
    assert await rows_in_scope("ada", connection, query, {"ours": "integrations%"}) == [{"n": 2}]
    async with connection.transaction(force_rollback=True):
        for _ in range(7):  # often enough that it prepares one of its own
            await connection.execute(b"SELECT %(n)s::int", {"n": 1})
    [left] = await (await connection.execute(query.encode(), {"ours": "integrations%"})).fetchall()
    assert left == {"n": 0}
    assert await rows_in_scope("ada", connection, query, {"ours": "integrations%"}) == [{"n": 2}]


async def test_a_name_that_another_session_gave_is_taken_over(connection: Connection) -> None:
    """As behind a pooler that does not know prepared statements."""
    await rows_in_scope("ada", connection, _SEEN, {})
    [[text, *_], *_] = _kept.pop(connection)
    assert b"set_config" in text
    assert await rows_in_scope("bob", connection, _SEEN, {}) == [{"scope": "bob"}]


async def test_a_table_that_changes_its_shape_is_read_anew(connection: Connection) -> None:
    await connection.execute(b"CREATE TEMPORARY TABLE shape AS SELECT 1 AS one")
    for _ in range(2):
        assert await rows_in_scope("ada", connection, "SELECT * FROM shape", {}) == [{"one": 1}]
    await connection.execute(b"ALTER TABLE shape ADD COLUMN two int")
    assert await rows_in_scope("ada", connection, "SELECT * FROM shape", {}) == [{"one": 1, "two": None}]


async def test_a_connection_keeps_no_more_than_its_bound(connection: Connection) -> None:
    count = "SELECT count(*) AS n FROM pg_prepared_statements"
    most = 0
    for number in range(KEPT + 50):
        await rows_in_scope("ada", connection, f"SELECT {number} AS n", {})
        [row] = await rows_in_scope("ada", connection, count, {})
        most = max(most, row["n"])
    assert KEPT - 2 <= most <= KEPT + 2


async def test_each_statement_is_prepared_once(connection: Connection) -> None:
    count = "SELECT count(*) AS n FROM pg_prepared_statements WHERE name LIKE %(ours)s"
    for number in range(20):
        [row] = await rows_in_scope(f"scope {number}", connection, count, {"ours": "integrations%"})
        assert row["n"] == 2


async def test_a_call_that_is_cancelled_stops_its_statement_and_gives_the_connection_back(stack: Stack) -> None:
    async with Database(stack.ready.database, max_connections=1) as database:
        mark = uuid.uuid4().hex

        async def running() -> bool:
            async with await psycopg.AsyncConnection.connect(stack.ready.database) as other:
                found = await other.execute(
                    b"SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep' AND query ~ %s",
                    (mark,),
                )
                return await found.fetchone() is not None

        with within_scope("ada"):
            asleep = asyncio.create_task(database.all(f'SELECT pg_sleep(60) AS "{mark}"', {}))
            while not await running():
                pass
            asleep.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asleep
            assert not await running()
            assert await database.one(_SEEN, {}) == {"scope": "ada"}


async def test_a_server_process_that_is_ended_is_unavailable_and_the_next_statement_goes(stack: Stack) -> None:
    async with Database(stack.ready.database, max_connections=1) as database:
        with within_scope("ada"):
            with pytest.raises(IntegrationError) as refused:
                await database.one("SELECT pg_terminate_backend(pg_backend_pid())", {})
            assert refused.value.code == ErrorCode.UNAVAILABLE
            assert await database.one(_SEEN, {}) == {"scope": "ada"}


async def test_no_cancellation_loses_a_connection(stack: Stack) -> None:
    """Wherever it comes: amid the statement, or while the connection goes back to a pool for which others wait."""
    async with Database(stack.ready.database, max_connections=2) as database:

        async def lane(chance: random.Random) -> None:
            for _ in range(150):
                with within_scope("ada"):
                    one = asyncio.create_task(database.one(_SEEN, {}))
                for _ in range(chance.randint(0, 30)):
                    await asyncio.sleep(0)
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    assert await one == {"scope": "ada"}

        await asyncio.gather(*(lane(random.Random(seed)) for seed in range(5)))
        async with database.connection() as first, database.connection() as second:  # none is missing
            assert first is not second
