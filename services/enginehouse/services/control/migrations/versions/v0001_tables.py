"""The tables of control."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    _create_tenancy()
    _create_deployments()
    _create_limits()
    _create_shares()
    _create_routers()
    _create_logs()


def downgrade() -> None:
    """Back to nothing."""
    for table in (
        "logged_charges",
        "access_logs",
        "acquisitions",
        "counters",
        "routers",
        "charges",
        "shares",
        "accounts",
        "limits",
        "revisions",
        "deployments",
        "keys",
        "projects",
        "tenants",
        "organizations",
    ):
        op.drop_table(table)


def _create_tenancy() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
    )
    op.create_table(
        "tenants",
        sa.Column("organization", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.Column("policy", sa.LargeBinary(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("declared", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization"], ["organizations.id"], name=op.f("fk_tenants_organizations"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("organization", "id", name=op.f("pk_tenants")),
    )
    op.create_table(
        "projects",
        sa.Column("organization", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization", "tenant"],
            ["tenants.organization", "tenants.id"],
            name=op.f("fk_projects_tenants"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization", "tenant", "id", name=op.f("pk_projects")),
    )
    op.create_table(
        "keys",
        sa.Column("organization", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("role", sa.BigInteger(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization", "tenant", "project"],
            ["projects.organization", "projects.tenant", "projects.id"],
            name=op.f("fk_keys_projects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization", "tenant", "project", "id", name=op.f("pk_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_keys_prefix")),
    )


def _create_deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("spec_json", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("declared", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
    )
    op.create_table(
        "revisions",
        sa.Column("deployment", sa.String(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("deployment", name=op.f("pk_revisions")),
    )


def _create_limits() -> None:
    op.create_table(
        "limits",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("unit", sa.BigInteger(), nullable=False),
        sa.Column("window_kind", sa.BigInteger(), nullable=False),
        sa.Column("cap", sa.BigInteger(), nullable=False),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.Column("declared", sa.Boolean(), nullable=False),
        sa.CheckConstraint("cap > 0", name=op.f("ck_limits_cap_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_limits")),
    )
    op.create_table(
        "accounts",
        sa.Column("limit_id", sa.String(), nullable=False),
        sa.Column("window_start_ms", sa.BigInteger(), nullable=False),
        sa.Column("window_end_ms", sa.BigInteger(), nullable=True),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("allotted", sa.BigInteger(), nullable=False),
        sa.Column("cap_target", sa.BigInteger(), nullable=False),
        sa.Column("cap_effective", sa.BigInteger(), nullable=False),
        sa.Column("overrun", sa.BigInteger(), nullable=False),
        sa.Column("written_off", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("spent + allotted <= cap_effective", name=op.f("ck_accounts_never_over_cap")),
        sa.CheckConstraint(
            "spent >= 0 AND allotted >= 0 AND cap_target > 0 AND overrun >= 0 AND written_off >= 0",
            name=op.f("ck_accounts_not_negative"),
        ),
        sa.ForeignKeyConstraint(["limit_id"], ["limits.id"], name=op.f("fk_accounts_limits"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("limit_id", "window_start_ms", name=op.f("pk_accounts")),
    )


def _create_shares() -> None:
    op.create_table(
        "shares",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("router", sa.String(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("limit_id", sa.String(), nullable=False),
        sa.Column("window_start_ms", sa.BigInteger(), nullable=False),
        sa.Column("remaining", sa.BigInteger(), nullable=False),
        sa.Column("term_end_ms", sa.BigInteger(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("is_closed", sa.Boolean(), nullable=False),
        sa.Column("written_off", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("NOT is_closed OR remaining = 0", name=op.f("ck_shares_closed_is_empty")),
        sa.CheckConstraint("remaining >= 0 AND written_off >= 0", name=op.f("ck_shares_not_negative")),
        sa.ForeignKeyConstraint(
            ["limit_id", "window_start_ms"],
            ["accounts.limit_id", "accounts.window_start_ms"],
            name=op.f("fk_shares_accounts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shares")),
    )
    op.create_index(
        op.f("ix_shares_fence_limit_id_window_start_ms"), "shares", ["fence", "limit_id", "window_start_ms"]
    )
    op.create_index(op.f("ix_shares_is_closed_term_end_ms"), "shares", ["is_closed", "term_end_ms"])
    op.create_index(op.f("ix_shares_limit_id_window_start_ms"), "shares", ["limit_id", "window_start_ms"])
    op.create_table(
        "charges",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("limit_id", sa.String(), nullable=False),
        sa.Column("share_id", sa.String(), nullable=False),
        sa.Column("router", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("overrun", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.BigInteger(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "limit_id", name=op.f("pk_charges")),
    )
    op.create_index(op.f("ix_charges_create_ms"), "charges", ["create_ms"])


def _create_routers() -> None:
    op.create_table(
        "routers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("enroll_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routers")),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "acquisitions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("router", sa.String(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("answer_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acquisitions")),
    )
    op.create_index(op.f("ix_acquisitions_answer_ms"), "acquisitions", ["answer_ms"])


def _create_logs() -> None:
    op.create_table(
        "access_logs",
        sa.Column("envoy", sa.String(), nullable=False),
        sa.Column("next_line", sa.BigInteger(), nullable=False),
        sa.Column("complete_until_ms", sa.BigInteger(), nullable=False),
        sa.Column("gap_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("is_over", sa.Boolean(), nullable=False),
        sa.Column("heard_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("envoy", name=op.f("pk_access_logs")),
    )
    op.create_table(
        "logged_charges",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("limit_id", sa.String(), nullable=False),
        sa.Column("share_id", sa.String(), nullable=False),
        sa.Column("router", sa.String(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("overrun", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "limit_id", name=op.f("pk_logged_charges")),
    )
    op.create_index(op.f("ix_logged_charges_share_id"), "logged_charges", ["share_id"])
