"""Maintenance without owning the tables; events by scope and told at once; late credentials; an index of keys."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

CREDENTIALS = """
-- What a rotation counts, and what `keys status` groups by.
CREATE INDEX credentials_key ON vault.credentials (key_id, key_version);

-- When the newest submission of credentials was scheduled, or they were erased: what was submitted before and comes to
-- its end only now is not stored.
ALTER TABLE integrations.instances ADD COLUMN submitted_at timestamptz NOT NULL DEFAULT 'epoch';
"""

# A row trigger: where no subscription matches, it costs nothing. Several of one transaction are one message.
TELLING = """
CREATE FUNCTION integrations.tell_of_delivery() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('integrations_deliveries', '');
    RETURN NULL;
END $$;
CREATE TRIGGER tell_of_delivery AFTER INSERT ON integrations.deliveries
    FOR EACH ROW EXECUTE FUNCTION integrations.tell_of_delivery();
"""

_UNSET = "coalesce(current_setting('integrations.scope', true), '') = ''"
_OWN = "coalesce(current_setting('integrations.scope', true), '') IN ('', scope)"

# A subscription to all scopes matches what happens in any, so whoever writes an event must see it. A delivery of an
# event that the same statement writes has no event yet that could be looked up: its subscription is looked at instead.
ROW_SECURITY = f"""
ALTER TABLE integrations.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY scope ON integrations.events USING ({_OWN});

ALTER TABLE integrations.subscriptions ENABLE ROW LEVEL SECURITY;
CREATE POLICY scope_read ON integrations.subscriptions FOR SELECT USING ({_OWN} OR all_scopes);
CREATE POLICY scope_insert ON integrations.subscriptions FOR INSERT WITH CHECK ({_OWN});
CREATE POLICY scope_update ON integrations.subscriptions FOR UPDATE USING ({_OWN});
CREATE POLICY scope_delete ON integrations.subscriptions FOR DELETE USING ({_OWN});

ALTER TABLE integrations.deliveries ENABLE ROW LEVEL SECURITY;
CREATE POLICY scope ON integrations.deliveries
    USING ({_UNSET} OR EXISTS (SELECT FROM integrations.events e WHERE e.id = event_id))
    WITH CHECK ({_UNSET} OR EXISTS (SELECT FROM integrations.subscriptions s WHERE s.id = subscription_id));

ALTER TABLE vault.subscription_secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY scope ON vault.subscription_secrets USING ({_UNSET} OR EXISTS (
    SELECT FROM integrations.subscriptions s
     WHERE s.id = subscription_id AND s.scope = current_setting('integrations.scope', true)));
"""

_DEFINER = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"

# The maintenance role's whole reach into the log's tables, as their owner: partitions are made, filled from the
# default one, attached, detached and dropped. No argument names a table that is not one of the log's partitions.
PARTITIONS = f"""
CREATE FUNCTION audit.month_table(month timestamptz) RETURNS name LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF date_trunc('month', month AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' IS DISTINCT FROM month THEN
        RAISE EXCEPTION 'not the first instant of a month (UTC): %', month USING ERRCODE = '22023';
    END IF;
    RETURN to_char(month AT TIME ZONE 'UTC', '"executions_"YYYY_MM');
END $$;

CREATE FUNCTION audit.month_end(month timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog RETURN (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';

-- By name: a later version's partitions may hold them in another order.
CREATE FUNCTION audit.execution_columns() RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
     WHERE attrelid = 'audit.executions'::regclass AND attnum > 0 AND NOT attisdropped $$;

-- One probe of the key a month: the rows themselves are not read.
CREATE FUNCTION audit.months_in_default(since timestamptz, until timestamptz) RETURNS SETOF timestamptz
    {_DEFINER} SET timezone = 'UTC' AS $$
BEGIN
    RETURN QUERY
    SELECT month FROM generate_series(since, until - interval '1 month', interval '1 month') AS month
     WHERE EXISTS (SELECT FROM audit.executions_default
                    WHERE scheduled_at >= month AND scheduled_at < audit.month_end(month));
END $$;

CREATE FUNCTION audit.default_reaches_before(moment timestamptz) RETURNS boolean {_DEFINER} AS $$
BEGIN
    RETURN EXISTS (SELECT FROM audit.executions_default WHERE scheduled_at < moment);
END $$;

-- The month's table, not attached yet, with a constraint that spares the scan. One that a run before left behind, or
-- that somebody detached, is taken as it is.
CREATE FUNCTION audit.make_month(month timestamptz) RETURNS void {_DEFINER} AS $$
DECLARE
    made name := audit.month_table(month);
BEGIN
    EXECUTE format('CREATE TABLE IF NOT EXISTS audit.%I (LIKE audit.executions INCLUDING DEFAULTS INCLUDING '
                   'CONSTRAINTS INCLUDING INDEXES INCLUDING STORAGE) WITH (autovacuum_enabled = false)', made);
    IF NOT EXISTS (SELECT FROM pg_constraint
                    WHERE conrelid = ('audit.' || quote_ident(made))::regclass AND conname = made || '_month') THEN
        EXECUTE format('ALTER TABLE audit.%I ADD CONSTRAINT %I CHECK (scheduled_at >= %L AND scheduled_at < %L)',
                       made, made || '_month', month, audit.month_end(month));
    END IF;
END $$;

CREATE FUNCTION audit.count_default() RETURNS void {_DEFINER} AS $$
BEGIN
    ANALYZE audit.executions_default;
END $$;

-- Where the next batch of the default partition's rows ends that nobody can come before any more, and how many it has.
CREATE FUNCTION audit.next_in_default(xid bigint, number bigint, batch integer, OUT upto_xid bigint, OUT upto bigint,
                                      OUT many bigint) {_DEFINER} AS $$
BEGIN
    SELECT found.recorded_xid, found.seq, count(*) OVER () INTO upto_xid, upto, many FROM (
        SELECT d.recorded_xid, d.seq FROM audit.executions_default d
         WHERE (d.recorded_xid, d.seq) > (xid, number)
           AND d.recorded_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
         ORDER BY d.recorded_xid, d.seq LIMIT batch) AS found
     ORDER BY found.recorded_xid DESC, found.seq DESC LIMIT 1;
END $$;

CREATE FUNCTION audit.default_has_more(xid bigint, number bigint, than integer) RETURNS boolean {_DEFINER} AS $$
BEGIN
    RETURN EXISTS (SELECT FROM audit.executions_default d WHERE (d.recorded_xid, d.seq) > (xid, number)
                    ORDER BY d.recorded_xid, d.seq OFFSET than LIMIT 1);
END $$;

-- Copy the rows after one and up to another, in the order of (recorded_xid, seq), into their months' tables. Twice
-- copied is once there: a run that died may have copied some.
CREATE FUNCTION audit.copy_to_months(months timestamptz[], xid bigint, number bigint, upto_xid bigint, upto bigint)
    RETURNS void {_DEFINER} AS $$
DECLARE
    columns text := audit.execution_columns();
    month timestamptz;
BEGIN
    FOREACH month IN ARRAY months LOOP
        EXECUTE format('INSERT INTO audit.%I (%s) SELECT %s FROM audit.executions_default
                         WHERE scheduled_at >= $1 AND scheduled_at < $2 AND (recorded_xid, seq) > ($3, $4) %s
                         ORDER BY recorded_xid, seq ON CONFLICT DO NOTHING',
                       audit.month_table(month), columns, columns,
                       CASE WHEN upto IS NOT NULL THEN 'AND (recorded_xid, seq) <= ($5, $6)' ELSE '' END)
          USING month, audit.month_end(month), xid, number, upto_xid, upto;
    END LOOP;
END $$;

CREATE FUNCTION audit.lock_executions() RETURNS void {_DEFINER} AS $$
BEGIN
    LOCK TABLE ONLY audit.executions IN ACCESS EXCLUSIVE MODE;
END $$;

-- Attach `months`, all of them made. Rows of theirs that the default partition still has move first, those of `copied`
-- from after (xid, number) on, and another default partition takes the place of this one, without what is older than
-- `dropped_before`. The caller holds the log's lock.
CREATE FUNCTION audit.attach_months(months timestamptz[], copied timestamptz[], dropped_before timestamptz,
                                    xid bigint, number bigint) RETURNS void {_DEFINER} AS $$
DECLARE
    columns text := audit.execution_columns();
    -- Rows of a month that had none before may have come since.
    late timestamptz[] := ARRAY(SELECT m FROM unnest(months) m WHERE m <> ALL (copied)
                                   AND EXISTS (SELECT FROM audit.executions_default
                                                WHERE scheduled_at >= m AND scheduled_at < audit.month_end(m)));
    exchanged boolean := cardinality(copied) > 0 OR cardinality(late) > 0
        OR coalesce(audit.default_reaches_before(dropped_before), false);
    month timestamptz;
    since timestamptz := coalesce(dropped_before, '-infinity');
BEGIN
    IF exchanged THEN
        PERFORM audit.copy_to_months(copied, xid, number, NULL, NULL), audit.copy_to_months(late, 0, 0, NULL, NULL);
        ALTER TABLE audit.executions DETACH PARTITION audit.executions_default;
    END IF;
    FOREACH month IN ARRAY months LOOP
        EXECUTE format('ALTER TABLE audit.executions ATTACH PARTITION audit.%I FOR VALUES FROM (%L) TO (%L)',
                       audit.month_table(month), month, audit.month_end(month));
        -- It was off, because a vacuum under way would have kept the table from being attached.
        EXECUTE format('ALTER TABLE audit.%I RESET (autovacuum_enabled)', audit.month_table(month));
    END LOOP;
    IF NOT exchanged THEN
        RETURN;
    END IF;
    ALTER TABLE audit.executions_default RENAME TO executions_moved;
    CREATE TABLE audit.executions_default PARTITION OF audit.executions DEFAULT WITH (autovacuum_enabled = false);
    -- Range by range, which the key finds: to look at every row that was moved would take long.
    FOREACH month IN ARRAY months || 'infinity'::timestamptz LOOP
        EXECUTE format('INSERT INTO audit.executions_default (%s) SELECT %s FROM audit.executions_moved
                         WHERE scheduled_at >= $1 AND scheduled_at < $2', columns, columns)
          USING since, month;
        CONTINUE WHEN month = 'infinity';
        since := greatest(since, audit.month_end(month));
    END LOOP;
    DROP TABLE audit.executions_moved;
END $$;

CREATE FUNCTION audit.detach_month(partition name) RETURNS void {_DEFINER} AS $$
BEGIN
    IF partition = 'executions_default' OR NOT EXISTS (
        SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'audit.executions'::regclass AND c.relname = partition
           AND c.relnamespace = 'audit'::regnamespace) THEN
        RAISE EXCEPTION 'no month of the log: %', partition USING ERRCODE = '22023';
    END IF;
    EXECUTE format('ALTER TABLE audit.executions DETACH PARTITION audit.%I', partition);
END $$;

CREATE FUNCTION audit.drop_detached(partition name) RETURNS void {_DEFINER} AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'audit'::regnamespace AND c.relname = partition
                      AND c.relname LIKE 'executions\\_%' AND c.relkind = 'r' AND NOT c.relispartition) THEN
        RAISE EXCEPTION 'no detached month of the log: %', partition USING ERRCODE = '22023';
    END IF;
    EXECUTE format('DROP TABLE audit.%I', partition);
END $$;
"""
FOR_MAINTENANCE = (
    "audit.months_in_default(timestamptz, timestamptz)",
    "audit.default_reaches_before(timestamptz)",
    "audit.make_month(timestamptz)",
    "audit.count_default()",
    "audit.next_in_default(bigint, bigint, integer)",
    "audit.default_has_more(bigint, bigint, integer)",
    "audit.copy_to_months(timestamptz[], bigint, bigint, bigint, bigint)",
    "audit.lock_executions()",
    "audit.attach_months(timestamptz[], timestamptz[], timestamptz, bigint, bigint)",
    "audit.detach_month(name)",
    "audit.drop_detached(name)",
)

# Also where an administrator migrates: they must not run as him.
OWNERS = f"""
DO $$
DECLARE
    owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'audit.executions'::regclass);
    function text;
BEGIN
    FOREACH function IN ARRAY ARRAY[{", ".join(f"'{one}'" for one in FOR_MAINTENANCE)}] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO %I', function, owner);
    END LOOP;
END $$;
"""

# Added to what the function says already, so that migrations beside this one may do the same in any order.
GRANTS = f"""
DO $do$
DECLARE
    before text := pg_get_functiondef('integrations.grant_roles()'::regprocedure);
    anchor text := $$('maintenance', 'DELETE ON audit.decrypts')$$;
    added text := $$('maintenance', 'DELETE ON audit.decrypts, audit.alerts'),
        -- Partitions are made, moved to and dropped by these functions, as their owner.
        ('maintenance', 'EXECUTE ON FUNCTION {", ".join(FOR_MAINTENANCE)}'),
        -- That tokens could not be revoked.
        ('worker', 'INSERT ON audit.alerts')$$;
BEGIN
    IF position(anchor IN before) = 0 THEN
        RAISE EXCEPTION 'grant_roles() is not as this migration knows it';
    END IF;
    EXECUTE replace(before, anchor, added);
END $do$;
SELECT integrations.grant_roles();
"""


def upgrade() -> None:
    for statements in (CREDENTIALS, TELLING, ROW_SECURITY, PARTITIONS, OWNERS, GRANTS):
        op.execute(statements)
