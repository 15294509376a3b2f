"""The gateway shows the schemas of methods: it reads definitions."""

from alembic import op

revision = "0009"
down_revision = "0008"

# The one list of grants stays the one list: a line of it changes, and it is granted anew.
GRANTS = """
DO $migration$ BEGIN
    EXECUTE replace(
        pg_get_functiondef('integrations.grant_roles()'::regprocedure),
        $$('gateway', 'SELECT ON integrations.alembic_version, integrations.large_results')$$,
        $$('gateway', 'SELECT ON integrations.alembic_version, integrations.large_results, integrations.definitions')$$
    );
    PERFORM integrations.grant_roles();
END $migration$;
"""


def upgrade() -> None:
    op.execute(GRANTS)
