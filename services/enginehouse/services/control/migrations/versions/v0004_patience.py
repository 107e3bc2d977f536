"""From when on a noted charge may be made: what is not certain waits for the node's report."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("logged_charges", sa.Column("due_ms", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Back."""
    op.drop_column("logged_charges", "due_ms")
