"""The tables. Amounts are in their limit's unit, times in Unix milliseconds, both BIGINT."""

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True, eq=False):
    """Root of the tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {int: BigInteger, str: String, bytes: LargeBinary}  # noqa: RUF012 (read by SQLAlchemy)


class OrganizationRow(Base):
    """An organization."""

    __tablename__ = "organizations"

    id: Mapped[str] = mapped_column(primary_key=True)
    create_ms: Mapped[int]


class TenantRow(Base):
    """A tenant. `declared`: it comes from the configuration file and leaves with it."""

    __tablename__ = "tenants"
    __table_args__ = (ForeignKeyConstraint(["organization"], ["organizations.id"], ondelete="CASCADE"),)

    organization: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    display_name: Mapped[str]
    policy: Mapped[bytes]
    create_ms: Mapped[int]
    declared: Mapped[bool]


class ProjectRow(Base):
    """A project. It comes to be with its first key."""

    __tablename__ = "projects"
    __table_args__ = (
        ForeignKeyConstraint(["organization", "tenant"], ["tenants.organization", "tenants.id"], ondelete="CASCADE"),
    )

    organization: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    create_ms: Mapped[int]


class KeyRow(Base):
    """An API key: its hash, never its secret."""

    __tablename__ = "keys"
    __table_args__ = (
        ForeignKeyConstraint(
            ["organization", "tenant", "project"],
            ["projects.organization", "projects.tenant", "projects.id"],
            ondelete="CASCADE",
        ),
    )

    organization: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[int]
    prefix: Mapped[str] = mapped_column(unique=True)
    secret_sha256: Mapped[bytes]
    create_ms: Mapped[int]
    expire_ms: Mapped[int | None]


class DeploymentRow(Base):
    """A deployment: the message as it is served, and the same as JSON for whoever reads the table.

    `quarantine` says why no request may go to it. Empty: it may.
    """

    __tablename__ = "deployments"

    id: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[bytes]
    spec_json: Mapped[str] = mapped_column(Text)
    revision: Mapped[int]
    declared: Mapped[bool]
    quarantine: Mapped[str] = mapped_column(default="", server_default="")


class PolicySetRow(Base):
    """A set of policy rules: the rules and data classes as they are served, and the same as JSON for readers."""

    __tablename__ = "policies"

    id: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[bytes]
    spec_json: Mapped[str] = mapped_column(Text)
    revision: Mapped[int]
    update_ms: Mapped[int]
    declared: Mapped[bool]


class RevisionRow(Base):
    """The last revision that a deployment's id ever had. It outlives the deployment: nodes fence by it."""

    __tablename__ = "revisions"

    deployment: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int]


class LimitRow(Base):
    """A limit. Only its cap ever changes. It counts from `start_ms` to `end_ms`; None: from ever, for ever.

    `uid` differs for every limit that ever was, also of one id.
    """

    __tablename__ = "limits"
    __table_args__ = (CheckConstraint("cap > 0", name="cap_positive"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str]
    unit: Mapped[int]
    window_kind: Mapped[int]
    cap: Mapped[int]
    time_zone: Mapped[str]
    declared: Mapped[bool]
    start_ms: Mapped[int | None] = mapped_column(default=None)
    end_ms: Mapped[int | None] = mapped_column(default=None)
    uid: Mapped[int] = mapped_column(default=0, server_default="0")


class AccountRow(Base):
    """One limit in one window: `enginehouse.router.limits.Account`."""

    __tablename__ = "accounts"
    __table_args__ = (
        ForeignKeyConstraint(["limit_id"], ["limits.id"], ondelete="CASCADE"),
        CheckConstraint("spent + allotted <= cap_effective", name="never_over_cap"),
        CheckConstraint(
            "spent >= 0 AND allotted >= 0 AND cap_target > 0 AND overrun >= 0 AND written_off >= 0", name="not_negative"
        ),
    )

    limit_id: Mapped[str] = mapped_column(primary_key=True)
    window_start_ms: Mapped[int] = mapped_column(primary_key=True)
    window_end_ms: Mapped[int | None]
    spent: Mapped[int]
    allotted: Mapped[int]
    cap_target: Mapped[int]
    cap_effective: Mapped[int]
    overrun: Mapped[int]
    written_off: Mapped[int]


class ShareRow(Base):
    """One router process's part of an account: `enginehouse.router.limits.Share`.

    `create_ms` and `term_end_ms` are on the steady clock. `written_off` is what was charged to end the doubt about it.
    """

    __tablename__ = "shares"
    __table_args__ = (
        ForeignKeyConstraint(
            ["limit_id", "window_start_ms"],
            ["accounts.limit_id", "accounts.window_start_ms"],
            ondelete="CASCADE",
        ),
        CheckConstraint("remaining >= 0 AND written_off >= 0", name="not_negative"),
        CheckConstraint("NOT is_closed OR remaining = 0", name="closed_is_empty"),
        Index(None, "limit_id", "window_start_ms"),
        Index(None, "fence", "limit_id", "window_start_ms"),
        Index(None, "is_closed", "term_end_ms"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    router: Mapped[str]
    fence: Mapped[int]
    limit_id: Mapped[str]
    window_start_ms: Mapped[int]
    remaining: Mapped[int]
    term_end_ms: Mapped[int]
    create_ms: Mapped[int]
    is_closed: Mapped[bool] = mapped_column(default=False)
    written_off: Mapped[int] = mapped_column(default=0)


class AcquisitionRow(Base):
    """An answer that was given, to be given again. `answer_ms` is on the steady clock."""

    __tablename__ = "acquisitions"
    __table_args__ = (Index(None, "answer_ms"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    router: Mapped[str]
    fence: Mapped[int]
    answer: Mapped[bytes]
    answer_ms: Mapped[int]


class ReleaseRow(Base):
    """A release that was done, not to be done again. `answer_ms` is on the steady clock."""

    __tablename__ = "releases"
    __table_args__ = (Index(None, "answer_ms"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    router: Mapped[str]
    fence: Mapped[int]
    answer_ms: Mapped[int]


class ChargeRow(Base):
    """One request's charge on one limit, made once. No foreign keys: it outlives shares and limits.

    `amount` is what was charged; `late` what came after the share's end and changed nothing.
    """

    __tablename__ = "charges"
    __table_args__ = (Index(None, "create_ms"),)

    request_id: Mapped[str] = mapped_column(primary_key=True)
    limit_id: Mapped[str] = mapped_column(primary_key=True)
    share_id: Mapped[str]
    router: Mapped[str]
    amount: Mapped[int]
    overrun: Mapped[int]
    late: Mapped[int]
    source: Mapped[int]
    create_ms: Mapped[int]


class LoggedChargeRow(Base):
    """What an access log says a request owes while somebody may still say it better: its router, or a node.

    Without a successor of its router, or the end of its share, it is not charged; nor before `due_ms`, on the steady
    clock, which is 0 for what is certain.
    """

    __tablename__ = "logged_charges"
    __table_args__ = (Index(None, "share_id"),)

    request_id: Mapped[str] = mapped_column(primary_key=True)
    limit_id: Mapped[str] = mapped_column(primary_key=True)
    share_id: Mapped[str]
    router: Mapped[str]
    fence: Mapped[int]
    amount: Mapped[int]
    overrun: Mapped[int]
    due_ms: Mapped[int] = mapped_column(default=0, server_default="0")


class RouterRow(Base):
    """A router and the fencing number of its newest process."""

    __tablename__ = "routers"

    id: Mapped[str] = mapped_column(primary_key=True)
    fence: Mapped[int]
    enroll_ms: Mapped[int]


class CounterRow(Base):
    """A number that only grows."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int]


class AccessLogRow(Base):
    """How far the access log of one Envoy process is known.

    Before `gap_until_ms` something may be missing. `is_over`: the last that was heard of it is that its end was not in
    order, so that nothing can follow. `heard_ms` is when anything was heard of it.
    """

    __tablename__ = "access_logs"

    envoy: Mapped[str] = mapped_column(primary_key=True)
    next_line: Mapped[int]
    complete_until_ms: Mapped[int]
    gap_until_ms: Mapped[int | None]
    is_over: Mapped[bool]
    heard_ms: Mapped[int]
