"""OAuth: an authorization says when its tokens were stored: it is good for one write, and a retry learns of it."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE vault.authorizations ADD COLUMN stored_at timestamptz")
