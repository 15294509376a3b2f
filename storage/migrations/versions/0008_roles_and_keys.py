"""Roles without login and what each may do, row-level security by scope, and the log of decrypts."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ROLES = (
    "integrations_owner",
    "integrations_registry",
    "integrations_worker",
    "integrations_gateway",
    "integrations_audit_writer",
    "integrations_audit_reader",
    "integrations_maintenance",
)

# Roles belong to the whole cluster: another database of it may have made them, also at this moment.
MAKE_ROLES = f"""
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[{", ".join(f"'{role}'" for role in ROLES)}] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE NOTICE 'role % is missing and % may not create it: let an administrator run '
                        '"CREATE ROLE % NOLOGIN", then run "SELECT integrations.grant_roles()"',
                        wanted, current_user, wanted;
            END;
        END IF;
    END LOOP;
END $$;
"""

DECRYPTS = """
-- Who opened which secret, with what key, and why. Never the secret.
CREATE TABLE audit.decrypts (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    opened_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind          text NOT NULL,
    scope         text,
    instance_id   uuid,
    -- What names the secret beside that: a credential's id, a definition's name, a seal key's id.
    subject       text NOT NULL,
    generation    bigint,
    key_id        text NOT NULL,
    key_version   integer NOT NULL,
    reason        text NOT NULL,
    worker        text NOT NULL,
    activity_type text NOT NULL,
    activity_id   text NOT NULL,
    attempt       integer NOT NULL,
    workflow_id   text,
    run_id        text
);
CREATE INDEX decrypts_time ON audit.decrypts USING brin (opened_at);
CREATE INDEX decrypts_instance ON audit.decrypts (instance_id, opened_at);
"""

# One row a table in which something is wrapped: so that `keys status` counts it, and a program of another version
# retires no key that this one uses, even where it does not know the table.
WRAPPED = """
CREATE VIEW integrations.wrapped_tables AS
SELECT n.nspname || '.' || c.relname AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname IN ('integrations', 'vault', 'audit')
   AND (SELECT count(*) FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attname IN ('wrapped_key', 'key_id', 'key_version') AND NOT a.attisdropped) = 3;
"""

_UNSET = "coalesce(current_setting('integrations.scope', true), '') = ''"
_OWN = "coalesce(current_setting('integrations.scope', true), '') IN ('', scope)"
_OWN_OR_GLOBAL = f"({_OWN} OR scope = 'global')"
_OF_OWN_INSTANCE = f"""({_UNSET} OR EXISTS (SELECT FROM integrations.instances i WHERE i.id = instance_id))"""
# What the instances of a scope share has no instance; its key holds the scope, and nobody guesses a key.
_OF_OWN_INSTANCE_OR_SHARED = f"(instance_id IS NULL OR {_OF_OWN_INSTANCE})"

POLICIES = {
    "integrations.instances": _OWN,
    "integrations.large_results": _OF_OWN_INSTANCE,
    "integrations.response_cache": _OF_OWN_INSTANCE_OR_SHARED,
    "vault.credentials": _OWN,
    "vault.authorizations": _OF_OWN_INSTANCE,
    "audit.executions": _OWN,
    "audit.decrypts": f"({_OWN} OR scope IS NULL)",
}
# Everybody uses the global ones; only who acts for no scope, or for the global one, changes them. Locking a row asks
# for USING of an update, so that is as wide as reading.
SHARED = ("integrations.definitions", "vault.oauth_clients")

# Who owns the tables is not held back by policies: it migrates and dumps. The service logs in as somebody else.
ROW_SECURITY = "\n".join(
    [
        *(
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;\nCREATE POLICY scope ON {table} USING ({rule});"
            for table, rule in POLICIES.items()
        ),
        *(
            f"""ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
                CREATE POLICY scope_read ON {table} FOR SELECT USING ({_OWN_OR_GLOBAL});
                CREATE POLICY scope_insert ON {table} FOR INSERT WITH CHECK ({_OWN});
                CREATE POLICY scope_update ON {table} FOR UPDATE USING ({_OWN_OR_GLOBAL}) WITH CHECK ({_OWN});
                CREATE POLICY scope_delete ON {table} FOR DELETE USING ({_OWN});"""
            for table in SHARED
        ),
    ]
)

# Run again after roles were made, and by every later migration that adds tables. It takes away before it gives, so
# what it says is all that there is. A role that is missing is passed over.
GRANTS = f"""
CREATE FUNCTION integrations.grant_roles() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    given record;
    ours text[] := ARRAY[{", ".join(f"'{role}'" for role in ROLES)}];
    one text;
BEGIN
    REVOKE ALL ON SCHEMA integrations, vault, audit FROM PUBLIC;
    REVOKE ALL ON ALL TABLES IN SCHEMA integrations, vault, audit FROM PUBLIC;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA integrations, vault, audit FROM PUBLIC;
    FOREACH one IN ARRAY ours LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one) OR one = current_user;
        EXECUTE format('REVOKE ALL ON SCHEMA integrations, vault, audit FROM %I', one);
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA integrations, vault, audit FROM %I', one);
        EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA integrations, vault, audit FROM %I', one);
    END LOOP;
    FOR given IN SELECT * FROM (VALUES
        ('owner', 'ALL ON SCHEMA integrations, vault, audit'),
        ('owner', 'ALL ON ALL TABLES IN SCHEMA integrations, vault, audit'),
        ('owner', 'ALL ON ALL FUNCTIONS IN SCHEMA integrations, vault, audit'),

        ('registry', 'USAGE ON SCHEMA integrations'),
        ('registry', 'SELECT ON integrations.alembic_version, integrations.instances, integrations.instance_usage'),
        ('registry', 'SELECT, INSERT, UPDATE, DELETE ON integrations.definitions'),

        ('worker', 'USAGE ON SCHEMA integrations, vault, audit'),
        ('worker', 'SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA integrations, vault'),
        ('worker', 'INSERT ON audit.executions, audit.decrypts'),
        -- What a write of a row that was there already is told apart by.
        ('worker', 'SELECT (scheduled_at, execution_key, attempt) ON audit.executions'),
        ('worker', 'USAGE ON ALL SEQUENCES IN SCHEMA integrations, vault, audit'),

        ('gateway', 'USAGE ON SCHEMA integrations, vault'),
        ('gateway', 'SELECT ON integrations.alembic_version, integrations.large_results'),
        ('gateway', 'SELECT (id, scope) ON integrations.instances'),
        ('gateway', 'SELECT (id, public_key, active) ON vault.seal_keys'),
        ('gateway', 'SELECT (state_hash, instance_id, return_url, expires_at, claimed_by, stored_at) '
                    'ON vault.authorizations'),

        ('audit_writer', 'USAGE ON SCHEMA audit'),
        ('audit_writer', 'INSERT ON audit.executions, audit.decrypts'),
        ('audit_writer', 'USAGE ON ALL SEQUENCES IN SCHEMA audit'),

        ('audit_reader', 'USAGE ON SCHEMA audit'),

        ('maintenance', 'USAGE ON SCHEMA integrations, audit'),
        ('maintenance', 'SELECT ON ALL TABLES IN SCHEMA integrations'),
        ('maintenance', 'INSERT ON audit.seals, audit.alerts'),
        ('maintenance', 'DELETE ON audit.decrypts')
    ) AS grants (role, privileges) LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'integrations_' || given.role);
        EXECUTE format('GRANT %s TO %I', given.privileges, 'integrations_' || given.role);
    END LOOP;
    -- By the parent only: a policy guards the table that a statement names, and no partition has one.
    FOR given IN SELECT c.oid::regclass AS name FROM pg_class c
                  WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition LOOP
        FOREACH one IN ARRAY ARRAY['integrations_audit_reader', 'integrations_maintenance'] LOOP
            CONTINUE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one);
            EXECUTE format('GRANT SELECT ON %s TO %I', given.name, one);
        END LOOP;
    END LOOP;
    -- Tables that are made later.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'integrations_worker') THEN
        ALTER DEFAULT PRIVILEGES IN SCHEMA integrations, vault
            GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO integrations_worker;
    END IF;
END $$;
SELECT integrations.grant_roles();
"""


def upgrade() -> None:
    for statements in (MAKE_ROLES, DECRYPTS, WRAPPED, ROW_SECURITY, GRANTS):
        op.execute(statements)
