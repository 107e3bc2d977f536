"""`enginehouse replay`: recorded decisions made again, by the same rules or by others."""

import asyncio
import json
import re
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from enginehouse.cli.money import usd
from enginehouse.cli.options import STATE_DEFAULT, StateOption
from enginehouse.cli.running import RunningMesh, find_mesh
from enginehouse.cli.table import answer_console
from enginehouse.contract import RequestError
from enginehouse.services.bus import Bus
from enginehouse.services.policies import Catalog
from enginehouse.services.replay import History, Report, compare, read_history
from enginehouse.services.router.desired import POLICIES_KEY
from enginehouse.services.settings import load_policies

EXIT_DIFFERENT = 3
"""The same rules led to other decisions, or a decision could not be made again."""
_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SHOWN = 20


def replay(
    policy: Annotated[
        Path | None, typer.Option(help="A file of rules to decide by, in place of those that were in force.")
    ] = None,
    since: Annotated[str, typer.Option(help="How far back: 30m, 24h, 7d, or a time in ISO 8601.")] = "24h",
    state: StateOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Make the recorded decisions again and report what differs. By the same rules nothing may: exit code 3 if it does.

    With --policy: which requests would move, what they would cost, which would be refused or served, and which would be
    served in another place.
    """
    mesh = find_mesh(state or STATE_DEFAULT)
    report = _report(mesh, begin_of(since, datetime.now(UTC)), policy)
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        show(report, answer_console(), has_other_rules=policy is not None)
    if policy is None and not report.is_identical:
        raise typer.Exit(EXIT_DIFFERENT)


def begin_of(since: str, now: datetime) -> datetime:
    """The moment that `since` means.

    Raises:
        RequestError: it means none.
    """
    ago = _AGO.fullmatch(since)
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise RequestError(
            f"--since is {since!r}; give a number with s, m, h or d, as 24h, or a time as 2026-01-31T08:00:00+00:00"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _report(mesh: RunningMesh, begin: datetime, policy: Path | None) -> Report:
    tree = mesh.settings.jurisdiction_tree
    if policy is None:
        return compare(asyncio.run(_history(mesh, begin)), tree)
    rules = load_policies(policy, Catalog(tree)).message.SerializeToString()
    return compare(asyncio.run(_history(mesh, begin)), tree, lambda entries: {**entries, POLICIES_KEY: rules})


async def _history(mesh: RunningMesh, begin: datetime) -> History:
    bus = Bus(mesh.nats_url, "replay")
    await bus.start()
    try:
        await bus.connected()
        return await read_history(bus, begin)
    finally:
        await bus.stop()


def show(report: Report, console: Console, *, has_other_rules: bool) -> None:
    """Prints a report as tables."""
    console.print(f"{report.total} decisions made again, {len(report.different)} of them differently")
    if report.without_snapshot:
        console.print(f"{report.without_snapshot} rest on a fleet or rules that the stream does not hold any more")
    if not report.different:
        console.print("every one is what it was", style="green")
        return
    if has_other_rules:
        before, after = report.cost_before_nanousd, report.cost_after_nanousd
        sign = "+" if after >= before else "-"
        console.print(f"cost: {usd(before)} USD before, {usd(after)} USD after ({sign}{usd(abs(after - before))})")
    for title, pairs, columns in (
        ("move to another replica", report.moved(), ("from", "to")),
        ("are refused that were served", report.refused(), ("reason", "rule")),
        ("are served that were refused", report.served(), ("reason then", "rule then")),
        ("are served in another place", report.places(), ("from", "to")),
    ):
        _show_pairs(title, pairs, columns, console)
    _show_changes(report, console)


def _show_pairs(title: str, pairs: "Counter[tuple[str, str]]", columns: tuple[str, str], console: Console) -> None:
    if not pairs:
        return
    console.print(f"\n{pairs.total()} requests {title}", style="bold")
    table = Table("requests", *columns, box=None)
    for (one, other), count in pairs.most_common(_SHOWN):
        table.add_row(str(count), one, other)
    console.print(table)


def _show_changes(report: Report, console: Console) -> None:
    console.print("\nchanged decisions", style="bold")
    table = Table("decision", "tenant", "model", "before", "after", box=None)
    for one in report.different[:_SHOWN]:
        request = one.record.request
        table.add_row(
            one.record.decision_id[:8],
            request.principal.tenant,
            request.model,
            ", ".join(one.before.replicas) or one.before.refusal,
            ", ".join(one.after.replicas) or one.after.refusal,
        )
    console.print(table)
    if len(report.different) > _SHOWN:
        print(f"and {len(report.different) - _SHOWN} more; --json has them all", file=sys.stderr)
