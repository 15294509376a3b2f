"""Cached responses, large results, and the epoch that tells a new credential from a renewed one."""

from alembic import op

revision = "0003"
down_revision = "0002"
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

EPOCH = """
-- The generation at which somebody gave the credential; renewals of its token keep it. With a default, so that a
-- worker of the version before, still running, loses no token for want of it.
ALTER TABLE vault.credentials ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
UPDATE vault.credentials SET epoch = generation;
"""

CACHE = f"""
-- Of no worth after a crash, and written at every miss: so it is not logged.
CREATE UNLOGGED TABLE integrations.response_cache (
    -- SHA-256 over all that decides the answer.
    key           bytea PRIMARY KEY,
    definition_id uuid NOT NULL,
    -- NULL where the instances of a scope share the answer.
    instance_id   uuid REFERENCES integrations.instances (id) ON DELETE CASCADE,
    -- Who fetches the answer now, since when, and until when the others wait for him.
    claim_id      uuid,
    claimed_at    timestamptz,
    claimed_until timestamptz,
    -- Until then nobody waits for anybody: the answers of this key cannot be kept.
    unkept_until  timestamptz,
    -- When the request left that brought the answer.
    asked_at      timestamptz,
    expires_at    timestamptz NOT NULL,
    {ENVELOPE.replace("NOT NULL", "")}
);
CREATE INDEX response_cache_instance_id ON integrations.response_cache (instance_id);
CREATE INDEX response_cache_expires_at ON integrations.response_cache (expires_at);
CREATE INDEX response_cache_shared ON integrations.response_cache (definition_id) WHERE instance_id IS NULL;
-- Ciphertext does not compress: not tried.
ALTER TABLE integrations.response_cache ALTER COLUMN ciphertext SET STORAGE EXTERNAL;
"""

RESULTS = f"""
CREATE TABLE integrations.large_results (
    id          uuid PRIMARY KEY,
    instance_id uuid NOT NULL REFERENCES integrations.instances (id) ON DELETE CASCADE,
    {ENVELOPE},
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);
CREATE INDEX large_results_instance_id ON integrations.large_results (instance_id);
CREATE INDEX large_results_expires_at ON integrations.large_results (expires_at);
ALTER TABLE integrations.large_results ALTER COLUMN ciphertext SET STORAGE EXTERNAL;
"""


def upgrade() -> None:
    for statements in (EPOCH, CACHE, RESULTS):
        op.execute(statements)
