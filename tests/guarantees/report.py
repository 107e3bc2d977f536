"""The table: for the console, and for docs/guarantees.md."""

import datetime as dt
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil
from jinja2 import StrictUndefined, Template

from tests.guarantees import configuration, tariff
from tests.guarantees.run import Row

_PAGE = Path(__file__).with_name("page.md.j2")
_NANOUSD = 10**9
_COLUMNS = (
    "database", "routers", "requests", "killed", "served", "broken", "402 at first", "503 at first", "402 in the end",
    "false", "overspend, ledger", "overspend, engines", "drift", "drift allowed", "back after", "took", "verdict",
)  # fmt: skip


def console_title() -> str:
    """The columns' names."""
    return " | ".join(_COLUMNS)


def console_line(row: Row) -> str:
    """A row under them."""
    return " | ".join(_cells(row))


def written(rows: Sequence[Row], minutes: float) -> str:
    """The page of the documentation."""
    broken = sum(bool(row.faults) for row in rows)
    page = Template(_PAGE.read_text(), undefined=StrictUndefined, keep_trailing_newline=True)
    text: str = page.render(
        version=version("enginehouse"),
        date=dt.datetime.now(dt.UTC).date(),
        machine=_machine(),
        minutes=round(minutes),
        verdict="every guarantee was kept" if not broken else f"{broken} of them broke a guarantee",
        rows=rows,
        table=[_COLUMNS, ["---"] * len(_COLUMNS), *map(_cells, rows)],
        tariff=tariff,
        settings=configuration,
    )
    return text


def _cells(row: Row) -> list[str]:
    one = row.configuration
    return [
        one.mesh.database.value,
        str(one.mesh.routers),
        str(one.requests),
        one.kill.value,
        str(row.served),
        str(row.broken),
        str(row.refused_first),
        str(row.unavailable_first),
        str(row.refused),
        f"{row.false_refusals} ({row.false_refusal_rate:.1%})",
        _usd(max(0, row.ledger_excess)),
        _usd(max(0, row.use_excess)),
        _usd(row.drift),
        _usd(row.drift_max),
        "-" if row.outage_s is None else f"{row.outage_s:.1f} s",
        f"{row.wall_s:.0f} s",
        "; ".join(row.faults) or "kept",
    ]


def _usd(nanousd: int) -> str:
    return f"{nanousd / _NANOUSD:.6f}" if nanousd else "0"


def _machine() -> str:
    memory_gib = round(psutil.virtual_memory().total / 2**30)
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory_gib} GiB of memory, {platform.system()}"
