"""Tickets with which a person connects an instance on the gateway's page."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TICKETS = """
-- Neither the ticket nor the session that it was exchanged for stands here: SHA-256 of each.
CREATE TABLE integrations.connect_tickets (
    ticket_hash        bytea PRIMARY KEY,
    instance_id        uuid NOT NULL REFERENCES integrations.instances (id) ON DELETE CASCADE,
    return_url         text,
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at         timestamptz NOT NULL,
    session_hash       bytea UNIQUE,
    session_expires_at timestamptz,
    posts              integer NOT NULL DEFAULT 0,
    ended_at           timestamptz,
    CHECK ((session_hash IS NULL) = (session_expires_at IS NULL))
);
CREATE INDEX connect_tickets_instance ON integrations.connect_tickets (instance_id);
CREATE INDEX connect_tickets_expiry ON integrations.connect_tickets (expires_at);
ALTER TABLE integrations.connect_tickets ENABLE ROW LEVEL SECURITY;
CREATE POLICY scope ON integrations.connect_tickets USING (
    coalesce(current_setting('integrations.scope', true), '') = ''
    OR EXISTS (SELECT FROM integrations.instances i WHERE i.id = instance_id));
"""

# Added to what the function says already, so that migrations beside this one may do the same in any order.
GRANTS = """
DO $do$
DECLARE
    before text := pg_get_functiondef('integrations.grant_roles()'::regprocedure);
    anchor text := $$('audit_writer', 'USAGE ON SCHEMA audit'),$$;
    added text := $$('gateway', 'SELECT, INSERT, UPDATE ON integrations.connect_tickets'),
        -- What the page's form is made of, beside the definition. The config comes from the workflow.
        ('gateway', 'SELECT (id, scope, name, definition_id) ON integrations.instances'),

        $$;
BEGIN
    IF position(anchor IN before) = 0 THEN
        RAISE EXCEPTION 'grant_roles() is not as this migration knows it';
    END IF;
    EXECUTE replace(before, anchor, added || anchor);
END $do$;
SELECT integrations.grant_roles();
"""


def upgrade() -> None:
    for statements in (TICKETS, GRANTS):
        op.execute(statements)
