"""No function of ours looks among a session's temporary tables first."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# A search path that does not name pg_temp has it before all else. `audit.execution_columns()` reads a catalog's table
# while it runs as the log's owner: a temporary view of that name had its functions run as him.
LAST = """
DO $do$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                     WHERE n.nspname IN ('integrations', 'vault', 'audit')
                       AND coalesce(array_to_string(p.proconfig, ' '), '') NOT LIKE '%search_path=pg_catalog, pg_temp%'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', function);
    END LOOP;
END $do$;
"""


def upgrade() -> None:
    op.execute(LAST)
