"""OAuth: authorizations under way, token requests under way, waiting calls, clients of a single instance."""

from alembic import op

revision = "0002"
down_revision = "0001"
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

CREDENTIALS = """
ALTER TABLE vault.credentials
    ADD COLUMN granted_scope text,
    ADD COLUMN renewable boolean NOT NULL DEFAULT false;

-- The generation of the last credential that was erased. The next one counts on from it, so that what was read
-- before a disconnect is never taken for current after it.
ALTER TABLE integrations.instances ADD COLUMN erased_generation bigint NOT NULL DEFAULT 0;
"""

AUTHORIZATIONS = f"""
CREATE TABLE vault.authorizations (
    -- SHA-256 of the state in base64url: the state itself is nowhere at rest.
    state_hash  text PRIMARY KEY,
    instance_id uuid NOT NULL REFERENCES integrations.instances (id) ON DELETE CASCADE,
    return_url  text,
    {ENVELOPE},
    expires_at  timestamptz NOT NULL,
    claimed_by  text,
    sent_at     timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX authorizations_instance_id ON vault.authorizations (instance_id);
CREATE INDEX authorizations_expires_at ON vault.authorizations (expires_at);
"""

TOKENS = """
-- Committed before a token request leaves, so that no second one leaves while the first may be on its way.
CREATE TABLE integrations.refresh_intents (
    instance_id uuid PRIMARY KEY REFERENCES integrations.instances (id) ON DELETE CASCADE,
    generation  bigint NOT NULL,
    token_hash  bytea NOT NULL,
    deadline    timestamptz NOT NULL,
    sends       integer NOT NULL,
    lost        boolean NOT NULL,
    answered    boolean NOT NULL
);

-- Calls that wait until their instance is connected again.
CREATE TABLE integrations.waiters (
    instance_id uuid NOT NULL REFERENCES integrations.instances (id) ON DELETE CASCADE,
    workflow_id text NOT NULL,
    run_id      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instance_id, workflow_id)
);
"""

CLIENTS = """
ALTER TABLE vault.oauth_clients
    ADD COLUMN instance_id uuid REFERENCES integrations.instances (id) ON DELETE CASCADE,
    DROP CONSTRAINT oauth_clients_pkey;
-- A definition's own client has no instance, and there is one of it.
CREATE UNIQUE INDEX oauth_clients_owner
    ON vault.oauth_clients (scope, definition_name, instance_id) NULLS NOT DISTINCT;
CREATE INDEX oauth_clients_instance_id ON vault.oauth_clients (instance_id);
"""


def upgrade() -> None:
    for statements in (CREDENTIALS, AUTHORIZATIONS, TOKENS, CLIENTS):
        op.execute(statements)
