"""A database as it is after a long time: 100,000 instances and what hangs on them, as rows that nobody decrypts."""

from __future__ import annotations

import json

import psycopg

from tests.world import definition_file

INSTANCES = 100_000
SCOPES = 200

_ENVELOPE = "envelope_version, suite, key_id, key_version, wrapped_key, commitment, nonce, ciphertext"
_VALUES = "1, 1, 'kek-old', 1, '\\x00'::bytea, '\\x00'::bytea, '\\x00'::bytea, '\\x00'::bytea"
_ID = "('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
# A second apart, but none in last month: its partition is not there, and a new month's few rows would be read whole.
_OF_THIS_MONTH = """greatest(now() - make_interval(secs => n),
                            date_trunc('month', now(), 'UTC') + make_interval(secs => n * 0.000001))"""
_MANY = f"generate_series(1, {INSTANCES}) AS n"
_SOME = f"generate_series(1, {INSTANCES // 4}) AS n"

DEFINITIONS = """INSERT INTO integrations.definitions (id, scope, name, version, status, content, published_at)
       SELECT ('00000000-0000-4000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, 'global', 'd' || n, '1.0.0', 'PUBLISHED',
              %s, now() FROM generate_series(1, 50) AS n"""
STATEMENTS = (
    f"""INSERT INTO integrations.instances (id, scope, name, definition_id, config, status)
        SELECT {_ID}, 's' || n % {SCOPES}, 'n' || n,
               ('00000000-0000-4000-9000-' || lpad(to_hex(n % 50 + 1), 12, '0'))::uuid, '{{}}', 'CONNECTED'
          FROM {_MANY}""",
    f"""INSERT INTO integrations.instance_usage
        SELECT {_ID}, now() - make_interval(secs => n) FROM {_MANY}""",
    f"""INSERT INTO vault.credentials (id, instance_id, scope, type, schema_version, generation, expires_at, renewable,
                                       {_ENVELOPE})
        SELECT {_ID}, {_ID}, 's' || n % {SCOPES}, 'custom', 1, 1, now() + make_interval(hours => n), n % 2 = 0,
               1, 1, CASE WHEN n % 100 = 0 THEN 'kek-old' ELSE 'kek-new' END, 1, '\\x00', '\\x00', '\\x00', '\\x00'
          FROM {_MANY}""",
    f"""INSERT INTO vault.authorizations (state_hash, instance_id, expires_at, {_ENVELOPE})
        SELECT 'h' || n, {_ID}, now() + interval '10 minutes', {_VALUES} FROM {_SOME}""",
    f"""INSERT INTO integrations.refresh_intents
        SELECT {_ID}, 1, '\\x00', now(), 1, false, true FROM {_SOME}""",
    f"""INSERT INTO integrations.waiters SELECT {_ID}, 'w' || n, 'r' FROM {_SOME}""",
    """INSERT INTO integrations.send_intents SELECT gen_random_uuid(), now() FROM generate_series(1, 25000)""",
    f"""INSERT INTO integrations.response_cache (key, definition_id, instance_id, asked_at, expires_at, {_ENVELOPE})
        SELECT sha256(n::text::bytea), ('00000000-0000-4000-9000-' || lpad(to_hex(n % 50 + 1), 12, '0'))::uuid, {_ID},
               now(), now() + interval '1 hour', {_VALUES} FROM {_MANY}""",
    f"""INSERT INTO integrations.large_results (id, instance_id, {_ENVELOPE}, expires_at)
        SELECT {_ID}, {_ID}, {_VALUES}, now() + interval '1 day' FROM {_SOME}""",
    f"""INSERT INTO integrations.rate_buckets (instance_id, method, empty_at)
        SELECT {_ID}, 'get', now() FROM {_SOME}""",
    f"""INSERT INTO integrations.breakers (instance_id, host, newest, sends, failures)
        SELECT {_ID}, 'h', extract(epoch FROM now()), '{{}}', '{{}}' FROM {_SOME}""",
    """INSERT INTO integrations.subscriptions (id, scope, webhook_url, event_types, type_patterns)
       SELECT gen_random_uuid(), 's' || n, 'https://receiver.example/', '{*}', '{%}'
         FROM generate_series(1, 20) AS n""",
    f"""INSERT INTO integrations.events (id, type, scope, subject, instance_id, definition, sequence, time, data)
        SELECT {_ID}, 'integration.connected', 's' || n % {SCOPES}, 's', {_ID}, 'd1', 1,
               now() - make_interval(secs => n), '{{}}' FROM {_MANY}""",
    f"""INSERT INTO integrations.event_sequences (instance_id, last) SELECT {_ID}, 1 FROM {_MANY}""",
    """INSERT INTO integrations.deliveries (subscription_id, event_id, instance_id, sequence, state, due_at, settled_at)
        SELECT s.id, e.id, e.instance_id, e.sequence,
               CASE WHEN e.time > now() - interval '10 minutes' THEN 'PENDING' ELSE 'DELIVERED' END, e.time, now()
          FROM integrations.events e JOIN integrations.subscriptions s ON right(s.scope, 1) = right(e.scope, 1)
         WHERE s.scope < 's2'""",
    f"""INSERT INTO audit.executions (scheduled_at, execution_key, attempt, scope, instance_id, definition,
                                      definition_version, method, status, duration_ms, request_bytes, response_bytes)
        SELECT {_OF_THIS_MONTH}, gen_random_uuid(), 1, 's' || n % {SCOPES}, {_ID}, 'd1', '1.0.0', 'get',
               'SUCCEEDED', 1, 1, 1 FROM {_MANY}""",
    f"""INSERT INTO audit.decrypts (opened_at, kind, scope, instance_id, subject, key_id, key_version, reason, worker,
                                    activity_type, activity_id, attempt)
        SELECT now() - make_interval(secs => {INSTANCES} - n), 'credential', 's' || n % {SCOPES}, {_ID}, 's', 'k', 1,
               'call', 'w', 'a', '1', 1 FROM {_MANY}""",
)


async def fill(superuser: str) -> None:
    """Fill an empty, migrated database. Triggers and foreign keys do not run: the rows fit each other."""
    async with await psycopg.AsyncConnection.connect(superuser) as connection:
        await connection.execute("SET session_replication_role = replica")
        file = definition_file("d", authType="custom")
        content = json.dumps({key: value for key, value in file.items() if key not in ("name", "version")})
        await connection.execute(DEFINITIONS, (content,))
        for statement in STATEMENTS:
            await connection.execute(statement.encode())
    async with await psycopg.AsyncConnection.connect(superuser, autocommit=True) as connection:
        await connection.execute("VACUUM ANALYZE")
