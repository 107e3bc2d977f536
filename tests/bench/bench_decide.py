"""What a decision costs, and what a view weighs: `make bench`.

Not a test: times depend on the machine. `growth` is the time per replica as a multiple of what it is in the row above,
`work growth` the same of the lines of code that run. Where only the first is above 1, the fleet has outgrown a cache.
"""

import gc
import statistics
import sys
import time
import tracemalloc
from dataclasses import dataclass, replace
from itertools import count
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from enginehouse.router import (
    Capabilities,
    Chip,
    ChipRule,
    Jurisdictions,
    Load,
    Moment,
    Policy,
    PolicyRule,
    PolicySet,
    Price,
    Principal,
    Replica,
    Request,
    Residency,
    View,
    When,
    by_deployment,
    decide,
)
from enginehouse.router.limits import REQUESTS, TOKENS, USD, Limit
from enginehouse.v1 import common_pb2, ledger_pb2

if TYPE_CHECKING:
    from _typeshed import TraceFunction

SIZES = (10, 100, 1_000, 10_000)
GOALS_US = {10: 50.0, 1_000: 2_000.0}
RULES = 20
ROUNDS = 7
ROUND_S = 0.15
MODEL = "m"
DEPLOYMENTS = ("d0", "d1", "d2", "d3")
PRINCIPAL = Principal("default", "acme", "p", "k")
JURISDICTIONS = Jurisdictions()
PLACES = [JURISDICTIONS.place(label) for label in ("eu/de", "eu/fr", "us/va")]
CAPABILITIES = Capabilities(
    operations=frozenset({common_pb2.OPERATION_CHAT}),
    features=frozenset({common_pb2.FEATURE_STREAM}),
    direct_dialects=frozenset({common_pb2.DIALECT_OPENAI}),
    context_tokens_max=8192,
    output_tokens_max=1024,
    template_tokens=31,
    message_tokens=5,
)
CHIPS = [Chip(common_pb2.CHIP_CLASS_GPU, "nvidia", model, 80 << 30) for model in ("h100", "h200", "a100")]


@dataclass(frozen=True, slots=True)
class Row:
    """One size of the fleet; microseconds. The best round is the least disturbed by whatever else the machine does."""

    replicas: int
    best_us: float
    median_us: float
    first_us: float
    lines: int

    @property
    def each_us(self) -> float:
        """For one replica."""
        return self.best_us / self.replicas

    @property
    def each_lines(self) -> float:
        """For one replica."""
        return self.lines / self.replicas


def policies() -> PolicySet:
    """Twenty rules, of which half apply."""
    tenant = PRINCIPAL.tenant_name
    rules = tuple(
        PolicyRule(
            f"rule {number}",
            When(principals=frozenset({tenant if number % 2 else f"{tenant}{number}"}), models=frozenset({MODEL})),
            Policy(
                residency=(Residency(allow=frozenset({"eu", "us"}), deny=frozenset({"ch"})),) if number % 3 else (),
                chips_forbidden=(ChipRule(models=frozenset({f"t{number}"})),),
                chips_preferred=(ChipRule(models=frozenset({"h200"})),),
                quality_floor=common_pb2.QUALITY_STANDARD,
            ),
        )
        for number in range(RULES)
    )
    return PolicySet(rules, tenants=frozenset({tenant}))


def fleet(size: int) -> list[Replica]:
    """Replicas of four deployments; every deployment has its price, and each replica a chip and a place."""
    return [
        Replica(
            id=f"d{number % 4}-n{number}-0",
            deployment=DEPLOYMENTS[number % 4],
            model=MODEL,
            node=f"n{number}",
            address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:9000",
            node_address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8000",
            served_model=MODEL,
            place=PLACES[number % len(PLACES)],
            chip=CHIPS[number % len(CHIPS)],
            capabilities=CAPABILITIES,
            price=Price(2 * 10**8 + number % 4 * 10**7, 10**8, 8 * 10**8),
            parallel=16,
        )
        for number in range(size)
    ]


def view(size: int) -> View:
    """A view of that many replicas, with three limits over the tenant."""
    limits = tuple(
        Limit(name, PRINCIPAL.tenant_name, unit, ledger_pb2.LIMIT_WINDOW_NONE, 10**15)
        for name, unit in (("usd", USD), ("tokens", TOKENS), ("requests", REQUESTS))
    )
    return View(
        models={MODEL: DEPLOYMENTS},
        replicas=by_deployment(fleet(size)),
        policies=policies(),
        limits=limits,
        here=(PLACES[0],),
    )


def moment(of: View) -> Moment:
    """Every replica busy, each differently, and a thousand of them with requests of this router."""
    replicas = [replica for group in of.replicas.values() for replica in group]
    return Moment(
        headroom={"usd": 10**15, "tokens": 10**15, "requests": 10**15}.__getitem__,
        in_flight={replica.id: number % 7 for number, replica in enumerate(replicas[:1000])},
        loads={replica.id: Load(number % 24, number % 3, 5000.0, 900.0) for number, replica in enumerate(replicas)},
        prefix_matches={replica.id: number % 4 for number, replica in enumerate(replicas[:16])},
    )


def requests() -> list[Request]:
    """Requests that differ as requests do: in id and size."""
    first = Request(
        id="r",
        operation=common_pb2.OPERATION_CHAT,
        dialect=common_pb2.DIALECT_OPENAI,
        model=MODEL,
        principal=PRINCIPAL,
        is_stream=True,
        features=frozenset({common_pb2.FEATURE_STREAM}),
        message_count=3,
        prefix_blocks=4,
    )
    return [replace(first, id=f"r{number}", prompt_text_bytes=number, output_tokens_max=100) for number in range(1000)]


def measure(size: int) -> Row:
    """Decides again and again, the policy's look-up included; the median of several rounds."""
    of = view(size)
    now, asked, numbers = moment(of), requests(), count()

    def one() -> None:
        request = asked[next(numbers) % len(asked)]
        decision = decide(request, of, of.policy(PRINCIPAL, MODEL), now)
        assert decision.attempts

    started_s = time.process_time()
    one()
    first_us = (time.process_time() - started_s) * 1e6
    rounds_us = []
    for _ in range(ROUNDS):
        done, started_s = 0, time.process_time()
        while (elapsed_s := time.process_time() - started_s) < ROUND_S or done < 3:
            one()
            done += 1
        rounds_us.append(elapsed_s / done * 1e6)
    return Row(size, min(rounds_us), statistics.median(rounds_us), first_us, lines_run(size))


def lines_run(size: int) -> int:
    """How many lines of code a decision runs through, when the view has seen its kind of request before."""
    of, asked, lines = view(size), requests(), 0
    now, policy = moment(of), of.policy(PRINCIPAL, MODEL)
    decide(asked[0], of, policy, now)

    def traced(_frame: FrameType, what: str, _: object) -> "TraceFunction":
        nonlocal lines
        lines += what == "line"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        decide(asked[1], of, policy, now)
    finally:
        sys.settrace(before)
    return lines


def view_bytes(size: int) -> int:
    """What a view of that many replicas takes, with what it has remembered after a decision."""
    gc.collect()
    tracemalloc.start()
    of = view(size)
    decide(requests()[0], of, of.policy(PRINCIPAL, MODEL), moment(of))
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken


def show(rows: list[Row], console: Console) -> None:
    """Prints the table."""
    table = Table(title=f"decide, {RULES} rules, one core", box=None, padding=(0, 2, 0, 0))
    for heading in ("replicas", "best us", "median us", "first us", "us/replica", "goal us", "growth", "work growth"):
        table.add_column(heading, justify="right")
    before: Row | None = None
    for row in rows:
        goal = GOALS_US.get(row.replicas)
        table.add_row(
            f"{row.replicas:,}",
            f"{row.best_us:,.1f}",
            f"{row.median_us:,.1f}",
            f"{row.first_us:,.0f}",
            f"{row.each_us:.2f}",
            "" if goal is None else f"{goal:,.0f} {'met' if row.median_us < goal else 'MISSED'}",
            f"{row.each_us / before.each_us:.2f}" if before else "",
            f"{row.each_lines / before.each_lines:.2f}" if before else "",
        )
        before = row
    console.print(table)


def main() -> None:
    """Measures and prints."""
    console = Console(highlight=False)
    show([measure(size) for size in SIZES], console)
    taken = view_bytes(SIZES[-1])
    console.print(f"view of {SIZES[-1]:,} replicas: {taken / 2**20:.1f} MiB, {taken / SIZES[-1]:,.0f} bytes a replica")


if __name__ == "__main__":
    main()
