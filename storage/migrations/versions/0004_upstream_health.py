"""How upstreams fare: until when one asked for quiet, and the circuit breakers."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PAUSES = """
ALTER TABLE integrations.rate_buckets
    -- When the bucket of those that have sent, or are about to, would be empty again; of those that came back late;
    -- and whether the last one to ask may send.
    ADD COLUMN sent_at timestamptz NOT NULL DEFAULT 'epoch',
    ADD COLUMN late_at timestamptz NOT NULL DEFAULT 'epoch',
    ADD COLUMN took boolean NOT NULL DEFAULT true,
    -- Until when the upstream asked that nothing be sent.
    ADD COLUMN paused_until timestamptz;
"""

BREAKERS = """
-- Of no worth after a crash: so it is not logged. A row is there only where sends have failed of late.
CREATE UNLOGGED TABLE integrations.breakers (
    instance_id  uuid NOT NULL REFERENCES integrations.instances (id) ON DELETE CASCADE,
    -- Host and port, lower case.
    host         text NOT NULL,
    -- Sends, and those of them that failed, by the second, the newest first; which second that is.
    newest       bigint NOT NULL,
    sends        integer[] NOT NULL,
    failures     integer[] NOT NULL,
    -- NULL while it is closed. Once the time has passed, one caller may probe.
    opened_until timestamptz,
    open_for     interval,
    -- Who probes, and until when the others wait for him.
    probe_id     uuid,
    probe_until  timestamptz,
    PRIMARY KEY (instance_id, host)
) WITH (fillfactor = 70);
"""


def upgrade() -> None:
    for statements in (PAUSES, BREAKERS):
        op.execute(statements)
