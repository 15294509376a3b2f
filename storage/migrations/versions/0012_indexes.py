"""Indexes of what is listed and swept, so that neither reads a whole table."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEXES = """
CREATE INDEX events_instance ON integrations.events (instance_id, time);
CREATE INDEX send_intents_created_at ON integrations.send_intents (created_at);
CREATE INDEX waiters_created_at ON integrations.waiters (created_at);
"""


def upgrade() -> None:
    op.execute(INDEXES)
