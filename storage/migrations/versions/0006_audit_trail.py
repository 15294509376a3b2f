"""The audit trail: partitions by month, an order that never changes afterwards, seals, alerts."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ORDER = """
CREATE SEQUENCE audit.executions_seq;

-- (recorded_xid, seq) is the order in which rows are sealed. A transaction's number is given before it writes and
-- the oldest one that still runs is known, so below that one no row can appear any more, however late it commits.
-- A sequence alone would not do: a number is taken long before its row is seen.
ALTER TABLE audit.executions
    ADD COLUMN recorded_xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    ADD COLUMN seq          bigint NOT NULL DEFAULT nextval('audit.executions_seq');
ALTER SEQUENCE audit.executions_seq OWNED BY audit.executions.seq;
CREATE INDEX executions_order ON audit.executions (recorded_xid, seq);
-- Its rows are only added, and a vacuum under way would keep `MaintainStorage` from exchanging it.
ALTER TABLE audit.executions_default SET (autovacuum_enabled = false);
"""

SEALS = """
-- Each seal covers the rows after the one before it, and its hash holds that one's hash.
CREATE TABLE audit.seals (
    number         bigint PRIMARY KEY CHECK (number > 0),
    -- Transaction numbers begin anew where a dump is restored. Rows of an era have a seq above its floor.
    era            integer NOT NULL,
    floor_seq      bigint NOT NULL,
    -- The last row that is covered, in the order of (recorded_xid, seq), and the greatest seq that ever was.
    through_xid    bigint NOT NULL,
    through_seq    bigint NOT NULL,
    max_seq        bigint NOT NULL,
    -- [["2026-11", rows, hash in hex], …]: by month, so that a month can be dropped and the rest still be checked.
    parts          json NOT NULL,
    -- Rows of before may have been dropped since.
    dropped_before timestamptz,
    previous_hash  bytea NOT NULL,
    hash           bytea NOT NULL,
    sealed_at      timestamptz NOT NULL
);

-- What maintenance found that somebody should know.
CREATE TABLE audit.alerts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,
    sentence    text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
"""

# This month and the next two, unless the default partition has rows of them: those `MaintainStorage` moves.
MONTHS = """
DO $$
DECLARE
    month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
BEGIN
    IF EXISTS (SELECT FROM audit.executions_default) THEN
        RETURN;
    END IF;
    FOR ahead IN 0..2 LOOP
        EXECUTE format('CREATE TABLE audit.%I PARTITION OF audit.executions FOR VALUES FROM (%L) TO (%L)',
                       'executions_' || to_char(month, 'YYYY_MM'), month AT TIME ZONE 'UTC',
                       (month + interval '1 month') AT TIME ZONE 'UTC');
        month := month + interval '1 month';
    END LOOP;
END $$
"""


def upgrade() -> None:
    for statements in (ORDER, SEALS, MONTHS):
        op.execute(statements)
