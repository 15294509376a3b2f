"""Events: the outbox, who subscribes, what is still to be delivered."""

from alembic import op

revision = "0007"
down_revision = "0006"
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

EVENTS = """
CREATE TABLE integrations.events (
    id          uuid PRIMARY KEY,
    type        text NOT NULL,
    scope       text NOT NULL DEFAULT 'global',
    subject     text NOT NULL,
    -- No foreign key: an event outlives its instance.
    instance_id uuid,
    definition  text,
    -- NULL where order does not count.
    sequence    bigint,
    time        timestamptz NOT NULL DEFAULT clock_timestamp(),
    data        jsonb NOT NULL
);
CREATE INDEX events_time ON integrations.events (time);
CREATE UNIQUE INDEX events_sequence ON integrations.events (instance_id, sequence) WHERE sequence IS NOT NULL;

-- Beside the instance, not in it: the row is locked last in its transaction, so that an instance's events are
-- committed in the order of their numbers.
CREATE TABLE integrations.event_sequences (
    instance_id         uuid PRIMARY KEY,
    last                bigint NOT NULL,
    -- The newest generation of its credential whose coming end was told.
    expiring_generation bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

-- What `integration.credential.expiring` looks for.
CREATE INDEX credentials_ending ON vault.credentials (expires_at) WHERE NOT renewable AND expires_at IS NOT NULL;
"""

SUBSCRIPTIONS = f"""
CREATE TABLE integrations.subscriptions (
    id              uuid PRIMARY KEY,
    scope           text NOT NULL DEFAULT 'global',
    all_scopes      boolean NOT NULL DEFAULT false CHECK (scope = 'global' OR NOT all_scopes),
    webhook_url     text,
    workflow_id     text,
    signal_name     text,
    event_types     text[] NOT NULL,
    -- The same for LIKE.
    type_patterns   text[] NOT NULL,
    definition      text,
    instance_id     uuid,
    enabled         boolean NOT NULL DEFAULT true,
    disabled_reason text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CHECK ((webhook_url IS NULL) = (workflow_id IS NOT NULL AND signal_name IS NOT NULL))
);

-- Several of one subscription are in use while it changes its secret.
CREATE TABLE vault.subscription_secrets (
    id              uuid PRIMARY KEY,
    subscription_id uuid NOT NULL REFERENCES integrations.subscriptions (id) ON DELETE CASCADE,
    {ENVELOPE},
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz
);
CREATE INDEX subscription_secrets_subscription_id ON vault.subscription_secrets (subscription_id);
"""

DELIVERIES = """
CREATE TABLE integrations.deliveries (
    -- No foreign key: its check would lock the subscription's one row at every call.
    subscription_id uuid NOT NULL,
    event_id        uuid NOT NULL REFERENCES integrations.events (id) ON DELETE CASCADE,
    -- Of an event in order; NULL otherwise.
    instance_id     uuid,
    sequence        bigint,
    state           text NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'DELIVERED', 'DEAD')),
    queued_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Not before; while one delivers it, the end of the lease.
    due_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Counts on for ever: whoever settles it must be the one who claimed it last.
    claims          integer NOT NULL DEFAULT 0,
    failures        integer NOT NULL DEFAULT 0,
    -- A code or a status, never a body.
    last_error      text,
    settled_at      timestamptz,
    PRIMARY KEY (subscription_id, event_id)
) WITH (fillfactor = 80);
CREATE INDEX deliveries_event_id ON integrations.deliveries (event_id);
CREATE INDEX deliveries_due ON integrations.deliveries (subscription_id, due_at) WHERE state = 'PENDING';
CREATE INDEX deliveries_order ON integrations.deliveries (subscription_id, instance_id, sequence)
    WHERE state = 'PENDING' AND sequence IS NOT NULL;
CREATE INDEX deliveries_dead ON integrations.deliveries (subscription_id, settled_at) WHERE state = 'DEAD';
"""


def upgrade() -> None:
    for statements in (EVENTS, SUBSCRIPTIONS, DELIVERIES):
        op.execute(statements)
