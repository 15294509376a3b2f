"""Whether a call slows down among many instances and under a long execution log: a database for each amount, a worker
on each, slices that alternate between them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from temporalio.api.enums.v1 import TaskQueueType

from benchmarks.comparison import Level, compare
from benchmarks.load import Slice
from benchmarks.processes import process
from benchmarks.scene import Scene, definition, publish
from integration_service.contracts.maintenance import MAINTENANCE_SCHEDULE
from integration_service.devstack.postgres import SUPERUSER
from integration_service.devstack.temporal import has_pollers
from integration_service.storage.database import Database
from integration_service.storage.migrations import migrate

CALLERS = 10
_ANY_PORT = "127.0.0.1:0"
_LOOK_EVERY_S = 0.2
_CALLED = 2_000
"""So many instances of each database are called, in turn and spread over all of them."""
_INSTANCES = """
INSERT INTO integrations.instances (id, name, definition_id, config, status, last_connected_at)
SELECT md5(n::text)::uuid, 'instance ' || n, %s, %s, 'CONNECTED', now() FROM generate_series(1, %s) AS n
"""
_CALLED_INSTANCES = """
SELECT md5(n::text)::uuid::text AS id FROM generate_series(1, %s) AS n ORDER BY md5(n::text) LIMIT %s
"""
# Never opened, since the definition asks for no authentication; but found by every call's join.
_CREDENTIALS = """
INSERT INTO vault.credentials (id, instance_id, type, schema_version, generation, envelope_version, suite, key_id,
                               key_version, wrapped_key, commitment, nonce, ciphertext)
SELECT gen_random_uuid(), id, 'api_key', 1, 1, 1, 1, 'none', 1, decode(repeat('00', 60), 'hex'),
       decode(repeat('00', 32), 'hex'), decode(repeat('00', 12), 'hex'), decode(repeat('00', 300), 'hex')
  FROM integrations.instances
"""
# A month's partition is filled bare and its indexes are built when it is attached: three times as fast.
_LOG = """
INSERT INTO audit.filled (scheduled_at, execution_key, attempt, instance_id, definition, definition_version, method,
                          workflow_id, run_id, activity_id, status, http_status, duration_ms, request_bytes,
                          response_bytes)
SELECT month + (now() - month) * (n / %(rows)s::float), md5('k' || n)::uuid, 1,
       md5((1 + n %% %(instances)s)::text)::uuid, 'amount', '1.0.0', 'get', 'call:' || n, 'run', '1', 'SUCCEEDED', 200,
       12, 0, 90
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n,
       (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS month) AS months
"""
_BATCH = 1_000_000


@dataclass(frozen=True)
class Amount:
    """How much a database holds."""

    instances: int
    log_rows: int = 0

    @property
    def name(self) -> str:
        return f"amount_{self.instances}_{self.log_rows}"

    @property
    def title(self) -> str:
        return f"{self.instances:,} instances, {self.log_rows:,} rows"


async def measure_amounts(scene: Scene, amounts: Sequence[Amount], *, rounds: int, seconds: float) -> Level:
    """The sides are the amounts' titles; the first amount is the one that ratios are of."""
    # Whichever worker starts last, the hourly run would seal the long log amid the slices.
    await scene.temporal.get_schedule_handle(MAINTENANCE_SCHEDULE).pause(note="a benchmark runs")
    async with AsyncExitStack() as opened:
        sides = {}
        for amount in amounts:
            began = time.monotonic()
            url, called = await _filled(scene, amount)
            sys.stderr.write(f"{amount.title} in {time.monotonic() - began:.0f} s\n")
            queue = f"integrations-{amount.name}"
            environment = {
                **scene.stack.environment,
                "INTEGRATIONS_DATABASE_URL": url,
                "INTEGRATIONS_TASK_QUEUE": queue,
                "INTEGRATIONS_WORKER_LISTEN": _ANY_PORT,
            }
            worker = await opened.enter_async_context(process("integration_service.worker", environment=environment))
            await _serves(scene, queue, worker)
            sides[amount.title] = Slice("method", queue=queue, instances=called)
        [level] = await compare(scene, sides, [CALLERS], rounds=rounds, seconds=seconds)
    return level


async def _serves(scene: Scene, queue: str, worker: asyncio.subprocess.Process) -> None:
    """Wait for it. Raises RuntimeError when it ended: nobody would answer the calls."""
    while not await has_pollers(scene.temporal, queue, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW):
        if worker.returncode is not None:
            raise RuntimeError("a worker did not start; why stands above")
        await asyncio.sleep(_LOOK_EVERY_S)


async def _filled(scene: Scene, amount: Amount) -> tuple[str, tuple[str, ...]]:
    """The URL of a new database of that amount, and the instances to call."""
    url = urlsplit(scene.stack.ready.database)
    database_url = url._replace(path=f"/{amount.name}").geturl()
    admin = await _superuser(scene, "postgres")
    async with admin:
        await admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(amount.name), sql.Identifier(str(url.username))
            )
        )
    await asyncio.to_thread(migrate, database_url)
    async with Database(database_url) as database:
        plain = definition("amount", authType="none")
        published = await publish(database, plain)
    connection = await _superuser(scene, amount.name)
    async with connection:
        await connection.execute(_INSTANCES, (published.id, json.dumps({"url": scene.url}), amount.instances))
        await connection.execute(_CREDENTIALS)
        if amount.log_rows:
            await _fill_log(connection, amount, str(url.username))
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
        cursor = await connection.execute(_CALLED_INSTANCES, (amount.instances, _CALLED))
        return database_url, tuple([str(row[0]) for row in await cursor.fetchall()])


async def _fill_log(connection: psycopg.AsyncConnection[tuple[object, ...]], amount: Amount, owner: str) -> None:
    cursor = await connection.execute("SELECT 'executions_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')")
    row = await cursor.fetchone()
    month = sql.Identifier("audit", str(row[0] if row else ""))
    cursor = await connection.execute(
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = to_char(now() AT TIME ZONE 'UTC', "
        "'\"executions_\"YYYY_MM')"
    )
    row = await cursor.fetchone()
    bounds = sql.SQL(str(row[0] if row else ""))  # the server's own text
    await connection.execute(sql.SQL("DROP TABLE {}").format(month))
    await connection.execute(
        "CREATE TABLE audit.filled (LIKE audit.executions INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
    )
    for first in range(0, amount.log_rows, _BATCH):
        last = min(first + _BATCH, amount.log_rows) - 1
        await connection.execute(
            _LOG, {"rows": amount.log_rows, "instances": amount.instances, "first": first, "last": last}
        )
    name = sql.Identifier(month.as_string().split(".")[-1].strip('"'))
    await connection.execute(sql.SQL("ALTER TABLE audit.filled RENAME TO {}").format(name))
    await connection.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(month, sql.Identifier(owner)))
    await connection.execute("SET maintenance_work_mem = '512MB'")
    await connection.execute(sql.SQL("ALTER TABLE audit.executions ATTACH PARTITION {} {}").format(month, bounds))


async def _superuser(scene: Scene, database: str) -> psycopg.AsyncConnection[tuple[object, ...]]:
    passwords = json.loads(scene.passwords.read_text(encoding="utf-8"))
    url = urlsplit(scene.stack.ready.database)
    return await psycopg.AsyncConnection.connect(
        host=url.hostname,
        port=url.port,
        user=SUPERUSER,
        password=passwords["superuser"],
        dbname=database,
        autocommit=True,
        options="-c synchronous_commit=off",
    )
