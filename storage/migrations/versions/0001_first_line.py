"""Definitions, instances, credentials, seal keys, OAuth clients, rate buckets, the execution log."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The columns of storage.vault.envelope.Envelope, wherever a secret is stored.
ENVELOPE = """
    envelope_version smallint NOT NULL,
    suite            smallint NOT NULL,
    key_id           text     NOT NULL,
    key_version      integer  NOT NULL,
    wrapped_key      bytea    NOT NULL,
    commitment       bytea    NOT NULL,
    nonce            bytea    NOT NULL,
    ciphertext       bytea    NOT NULL
"""

REGISTRY = """
CREATE TABLE integrations.definitions (
    id           uuid PRIMARY KEY,
    scope        text NOT NULL DEFAULT 'global',
    name         text NOT NULL,
    version      text NOT NULL,
    status       text NOT NULL CHECK (status IN ('DRAFT', 'PUBLISHED', 'DEPRECATED', 'ARCHIVED')),
    -- json, not jsonb: the order of a schema's properties is the order of a form's fields.
    content      json NOT NULL,
    revision     integer NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    UNIQUE (scope, name, version)
);

CREATE TABLE integrations.instances (
    id                uuid PRIMARY KEY,
    scope             text NOT NULL DEFAULT 'global',
    name              text NOT NULL,
    definition_id     uuid NOT NULL REFERENCES integrations.definitions (id),
    config            json NOT NULL,
    status            text NOT NULL CHECK (status IN ('PENDING_CONFIGURATION', 'PENDING_AUTHENTICATION',
                          'CONNECTED', 'DISCONNECTED', 'AUTH_ERROR', 'CONFIG_ERROR')),
    error             json,
    version           integer NOT NULL DEFAULT 1,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    last_connected_at timestamptz,
    UNIQUE (scope, name)
);
CREATE INDEX instances_definition_id ON integrations.instances (definition_id);
CREATE INDEX instances_status ON integrations.instances (status);

-- Beside the instance, not in it: a call writes here without touching the row that has a version.
CREATE TABLE integrations.instance_usage (
    instance_id  uuid PRIMARY KEY REFERENCES integrations.instances (id) ON DELETE CASCADE,
    last_used_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX instance_usage_last_used_at ON integrations.instance_usage (last_used_at);

-- Committed just before the first byte of a request that must not be sent twice. A row that is still here when
-- the same execution comes again says that the outcome of the first send is unknown.
CREATE TABLE integrations.send_intents (
    execution_key uuid PRIMARY KEY,
    created_at    timestamptz NOT NULL DEFAULT now()
);
"""

LIMITS = """
-- Of no worth after a crash, and written at every limited call: so it is not logged.
CREATE UNLOGGED TABLE integrations.rate_buckets (
    instance_id uuid NOT NULL REFERENCES integrations.instances (id) ON DELETE CASCADE,
    method      text NOT NULL,
    empty_at    timestamptz NOT NULL,
    PRIMARY KEY (instance_id, method)
) WITH (fillfactor = 70);
"""

VAULT = f"""
CREATE SCHEMA vault;

CREATE TABLE vault.credentials (
    id             uuid PRIMARY KEY,
    instance_id    uuid NOT NULL UNIQUE REFERENCES integrations.instances (id),
    scope          text NOT NULL DEFAULT 'global',
    type           text NOT NULL,
    schema_version integer NOT NULL,
    generation     bigint NOT NULL,
    {ENVELOPE},
    expires_at     timestamptz,
    quarantined_at timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE vault.seal_keys (
    id         text PRIMARY KEY,
    public_key bytea NOT NULL,
    {ENVELOPE},
    created_at timestamptz NOT NULL DEFAULT now(),
    active     boolean NOT NULL
);
CREATE UNIQUE INDEX seal_keys_one_active ON vault.seal_keys (active) WHERE active;

CREATE TABLE vault.oauth_clients (
    scope           text NOT NULL DEFAULT 'global',
    definition_name text NOT NULL,
    {ENVELOPE},
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, definition_name)
);
"""

AUDIT = """
CREATE SCHEMA audit;

CREATE TABLE audit.executions (
    scheduled_at       timestamptz NOT NULL,
    execution_key      uuid NOT NULL,
    attempt            integer NOT NULL,
    scope              text NOT NULL DEFAULT 'global',
    instance_id        uuid NOT NULL,
    definition         text NOT NULL,
    definition_version text NOT NULL,
    method             text NOT NULL,
    workflow_id        text,
    run_id             text,
    activity_id        text,
    status             text NOT NULL CHECK (status IN ('SUCCEEDED', 'FAILED')),
    code               text,
    http_status        integer,
    duration_ms        integer NOT NULL,
    request_bytes      bigint NOT NULL,
    response_bytes     bigint NOT NULL,
    correlation_id     text,
    recorded_at        timestamptz NOT NULL DEFAULT now(),
    -- The key of a partition must contain its time, so it is the activity's own, the same at each write.
    PRIMARY KEY (scheduled_at, execution_key, attempt)
) PARTITION BY RANGE (scheduled_at);
CREATE INDEX executions_instance ON audit.executions (instance_id, scheduled_at);
CREATE INDEX executions_time ON audit.executions USING brin (scheduled_at);
-- Where a row goes whose month has no partition: a row is never lost for want of one.
CREATE TABLE audit.executions_default PARTITION OF audit.executions DEFAULT;
"""


def upgrade() -> None:
    for statements in (REGISTRY, LIMITS, VAULT, AUDIT):
        op.execute(statements)
