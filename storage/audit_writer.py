"""How rows of the execution log get there: those that come while others are being written share the next commit."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from pydantic_core import to_json

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.database import Database
from integration_service.storage.decrypt_log import INSERT_DECRYPTS, decrypt_parameters
from integration_service.storage.execution import COLUMNS, Execution
from integration_service.storage.outbox import method_events
from integration_service.storage.vault.openings import Opening, Openings, current_openings

LANES = 2
"""So many statements at once: while one waits for the disk, the other's rows are on their way."""
BATCH = 100
_TYPES = {
    "scheduled_at": "timestamptz", "execution_key": "uuid", "attempt": "integer", "instance_id": "uuid",
    "http_status": "integer", "duration_ms": "integer", "request_bytes": "bigint", "response_bytes": "bigint",
}  # fmt: skip
_ROW = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in COLUMNS)
_NAMES = ", ".join(COLUMNS)
# Sorted, so that two statements that meet the same rows take their locks in one order. An instance's use is written at
# most once in ten seconds, so that a busy one has no hot row. All rows are one parameter, and all white space is one
# blank: psycopg reads a statement anew each time that has over 4,096 characters, and an array a column costs as much.
_RECORD = " ".join(
    f"""
WITH given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(rows)s::json) AS rows ({_ROW}, settles_intent boolean)
), execution AS (
    INSERT INTO audit.executions ({_NAMES})
    SELECT {_NAMES} FROM given ORDER BY execution_key, attempt
    ON CONFLICT DO NOTHING RETURNING scheduled_at, execution_key, attempt
), written AS (
    SELECT given.* FROM given JOIN execution USING (scheduled_at, execution_key, attempt)
), {method_events("written")}, decrypts AS ({INSERT_DECRYPTS}), intent AS (
    DELETE FROM integrations.send_intents
     WHERE execution_key = ANY (ARRAY(SELECT execution_key FROM given WHERE settles_intent))
)
INSERT INTO integrations.instance_usage AS usage (instance_id, last_used_at)
SELECT id, now() FROM integrations.instances i
 WHERE id = ANY (ARRAY(SELECT DISTINCT instance_id FROM given))
   AND NOT EXISTS (SELECT 1 FROM integrations.instance_usage u
                    WHERE u.instance_id = i.id AND u.last_used_at > now() - interval '10 seconds')
 ORDER BY id
ON CONFLICT (instance_id) DO UPDATE SET last_used_at = excluded.last_used_at
""".split()
)


@dataclass
class _Waiting:
    """A row whose writer waits for the commit, and on whose behalf: statements read the scope from the context."""

    execution: Execution
    settles_intent: bool
    committed: asyncio.Future[None]
    context: Context = field(default_factory=copy_context)
    openings: Openings | None = field(default_factory=current_openings)
    opened: list[Opening] = field(default_factory=list)
    """The secrets that the call opened: their rows share its commit."""


class AuditWriter:
    """Writes rows of one database. Nobody waits for company: a row that comes alone leaves at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Waiting] = deque()
        self._committing: set[asyncio.Task[None]] = set()

    async def write(self, execution: Execution, *, settles_intent: bool) -> None:
        """Returns once the row is committed, with the end of its intent and the instance's use.

        A row that cannot be stored fails alone. Raises IntegrationError UNAVAILABLE or VALIDATION_ERROR; after
        UNAVAILABLE the row may be there, and writing it again gives one row.
        """
        waiting = _Waiting(execution, settles_intent, asyncio.get_running_loop().create_future())
        if waiting.openings is not None:
            waiting.opened = waiting.openings.take()
        self._waiting.append(waiting)
        if len(self._committing) < LANES:
            self._commit_next()
        await waiting.committed

    def _commit_next(self) -> None:
        batch = self._take()
        # In the context of one of them: all are of one scope. The loop itself holds tasks weakly.
        commit = asyncio.get_running_loop().create_task(self._commit(batch), context=batch[0].context)
        self._committing.add(commit)
        commit.add_done_callback(self._committed)

    def _committed(self, commit: asyncio.Task[None]) -> None:
        self._committing.discard(commit)
        if self._waiting:
            self._commit_next()

    def _take(self) -> list[_Waiting]:
        """The first row, and those of its scope that came after it: row security asks for one scope a statement."""
        scope = self._waiting[0].execution.scope
        batch: list[_Waiting] = []
        others: list[_Waiting] = []
        while self._waiting and len(batch) < BATCH:
            one = self._waiting.popleft()
            (batch if one.execution.scope == scope else others).append(one)
        self._waiting.extendleft(reversed(others))
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        try:
            await self._database.one(_RECORD, _values(batch))
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0], error)
            elif isinstance(error, IntegrationError) and error.code == ErrorCode.UNAVAILABLE:
                for one in batch:
                    # One each: an exception that several raise gathers all of their traces.
                    _fail(one, IntegrationError(error.code, error.message))
            else:
                for one in batch:
                    await asyncio.get_running_loop().create_task(self._commit([one]), context=one.context)
        else:
            for one in batch:
                if not one.committed.done():
                    one.committed.set_result(None)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if waiting.openings is not None:
        waiting.openings.give_back(waiting.opened)
    if not waiting.committed.done():
        waiting.committed.set_exception(error)


def _values(batch: list[_Waiting]) -> dict[str, str]:
    rows = [{**vars(one.execution), "settles_intent": one.settles_intent} for one in batch]
    opened = [opening for one in batch for opening in one.opened]
    return {"rows": to_json(rows).decode(), **decrypt_parameters(opened)}
