"""The table: for the console, and for docs/guarantees.md."""

from collections.abc import Sequence

from tests.guarantees.run import Row

_COLUMNS = (
    "database", "routers", "requests", "killed", "served", "refused at first (402, 503)", "refused", "false refusals",
    "overspend: ledger, engines", "drift", "drift allowed", "recovery s", "run s", "verdict",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """A row as text, in the order of the columns."""
    one = row.configuration
    return [
        one.mesh.database.value,
        str(one.mesh.routers),
        str(one.requests),
        one.kill.value,
        str(row.served),
        f"{row.refused_first}, {row.unavailable_first}",
        str(row.refused),
        f"{row.false_refusals} ({row.false_refusal_rate:.1%})",
        f"{max(0, row.ledger_excess)}, {max(0, row.use_excess)}",
        str(row.drift),
        str(row.drift_max),
        "-" if row.outage_s is None else f"{row.outage_s:.1f}",
        f"{row.wall_s:.0f}",
        "; ".join(row.faults) or "kept",
    ]


def console_title() -> str:
    """The columns' names."""
    return " | ".join(_COLUMNS)


def console_line(row: Row) -> str:
    """A row under them."""
    return " | ".join(cells(row))


def written(rows: Sequence[Row]) -> str:
    return ""
