"""Periods of limits, answered releases, and quarantined deployments."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "releases",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("router", sa.String(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("answer_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
    )
    op.create_index(op.f("ix_releases_answer_ms"), "releases", ["answer_ms"])
    op.add_column("limits", sa.Column("start_ms", sa.BigInteger(), nullable=True))
    op.add_column("limits", sa.Column("end_ms", sa.BigInteger(), nullable=True))
    op.add_column("limits", sa.Column("uid", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("deployments", sa.Column("quarantine", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Back."""
    op.drop_column("deployments", "quarantine")
    op.drop_column("limits", "uid")
    op.drop_column("limits", "end_ms")
    op.drop_column("limits", "start_ms")
    op.drop_index(op.f("ix_releases_answer_ms"), table_name="releases")
    op.drop_table("releases")
