"""What must be true after every step, and in the end. Each oracle knows what really happened."""

from collections import defaultdict
from dataclasses import dataclass

from enginehouse.router import Replica
from enginehouse.router.limits import IN_FLIGHT, Limit
from enginehouse.v1 import router_pb2
from tests.simulation.ledger_state import ChargeState, Key, LedgerState, ShareState
from tests.simulation.router import CHECK_TIMEOUT_MS, RouterProcess
from tests.simulation.scene import HOUR, MINUTE, Rules
from tests.simulation.truth import Truth, Work

_LENGTH_MS = {MINUTE: 60_000, HOUR: 3_600_000}
"""Of windows that begin at the same moments in every zone that the scene knows."""


class Violation(Exception):
    """A promise was broken."""


def require(condition: bool, message: str) -> None:
    """Raises unless `condition`."""
    if not condition:
        raise Violation(message)


@dataclass(slots=True)
class Known:
    """What the oracles remember from step to step.

    Attributes:
        caps: `cap_effective` and `cap_target` of each account as they were last seen.
        deleted: limits that were deleted at least once.
        judged: charges that have been looked at.
        fence: the largest that was given.
    """

    caps: dict[Key, tuple[int, int]]
    deleted: set[str]
    judged: set[tuple[str, str]]
    fence: int = 0


def check_rows(state: LedgerState, known: Known) -> None:
    """The ledger adds up, stays under its caps, and no effective cap rises but by an operator's hand."""
    remaining: dict[Key, int] = defaultdict(int)
    spent: dict[Key, int] = defaultdict(int)
    for share in state.shares.values():
        remaining[share.key] += share.remaining
        spent[share.key] += share.written_off
    for charge in state.charges.values():
        charged = state.shares.get(charge.share)
        if charged is not None:
            spent[charged.key] += charge.amount
    for key, account in state.accounts.items():
        where = f"limit {account.limit} window {account.window_start_ms}"
        require(
            account.spent + account.allotted <= account.cap_effective,
            f"{where}: spent {account.spent} + allotted {account.allotted} > cap {account.cap_effective}",
        )
        require(
            account.allotted == remaining[key],
            f"{where}: allotted {account.allotted}, but its shares have {remaining[key]}",
        )
        require(
            account.spent == spent[key], f"{where}: spent {account.spent}, but charges and write-offs are {spent[key]}"
        )
        given = account.spent + account.allotted
        require(
            account.cap_effective == max(account.cap_target, given),
            f"{where}: cap_effective {account.cap_effective} with target {account.cap_target} and {given} given",
        )
        before = known.caps.get(key)
        if before is not None and before[1] == account.cap_target:
            require(
                account.cap_effective <= before[0],
                f"{where}: cap_effective rose from {before[0]} to {account.cap_effective}",
            )
        known.caps[key] = (account.cap_effective, account.cap_target)


def check_grants(before: LedgerState, after: LedgerState) -> None:
    """Nothing is leased above the cap: what was given grows only up to the cap that the limit says."""
    for key, account in after.accounts.items():
        earlier = before.accounts.get(key)
        given = account.spent + account.allotted
        if earlier is not None and given > earlier.spent + earlier.allotted:
            require(
                given <= account.cap_target,
                f"limit {account.limit}: {given} given, above the cap of {account.cap_target}",
            )


def check_exposure(state: LedgerState, truth: Truth) -> None:
    """G1: what engines used or may yet use is inside what the ledger counts, so it is never above the cap."""
    real: dict[Key, int] = defaultdict(int)
    for allowance, amount in truth.exposures():
        share = state.shares.get(allowance)
        if share is not None:
            real[share.key] += amount
    for key, amount in real.items():
        account = state.accounts[key]
        require(
            amount <= account.spent + account.allotted,
            f"limit {account.limit}: {amount} is really used or running, the ledger counts {account.spent} spent"
            f" and {account.allotted} allotted",
        )


def check_book(state: LedgerState, truth: Truth, router: RouterProcess) -> None:
    """What a router can still hold, or holds and has not settled, is inside its allowance."""
    book = router.allowances.book
    now_ms = router.boot_ms()
    held: dict[str, int] = defaultdict(int)
    unsettled: dict[str, int] = defaultdict(int)
    for request_id in truth.admissions:
        for hold in book.holds_of(request_id):
            held[hold.share] += hold.amount
            if (request_id, hold.limit) not in state.charges:
                unsettled[hold.share] += hold.amount
    excess = _excess(state, truth)
    for share in book.shares():
        where = f"{router.router}: allowance {share.id}"
        require(0 <= share.held <= share.amount, f"{where}: holds {share.held} of {share.amount}")
        require(share.held == held[share.id], f"{where}: holds {share.held}, of requests {held[share.id]}")
        row = state.shares.get(share.id)
        if row is None or now_ms >= share.usable_until_ms:
            continue
        require(not row.is_closed, f"{where}: usable, and the ledger has closed it")
        require(
            share.free + unsettled[share.id] <= row.remaining + excess[share.id],
            f"{where}: {share.free} free and {unsettled[share.id]} held, the ledger leased {row.remaining}",
        )


def _excess(state: LedgerState, truth: Truth) -> dict[str, int]:
    """By allowance: what logs charged above use, because they had no count, where a node's report told the router."""
    excess: dict[str, int] = defaultdict(int)
    for (request_id, limit), charge in state.charges.items():
        work = truth.works.get(request_id)
        if work is None or work.is_counted or work.is_running:
            continue
        for hold in work.ticket.holds:
            if hold.limit == limit and hold.allowance == charge.share:
                excess[charge.share] += max(0, charge.amount - work.used(hold))
    return excess


def check_holds(
    state: LedgerState, known: Known, limits: tuple[Limit, ...], ticket: router_pb2.Ticket, now_ms: int
) -> None:
    """At the moment of a hold: in every limit that covers the request, in the right window, and within the term."""
    principal = ticket.principal
    key = (
        f"organizations/{principal.organization}/tenants/{principal.tenant}"
        f"/projects/{principal.project}/keys/{principal.key}"
    )
    resources = (key, "models/m", f"deployments/{ticket.attempts[0].deployment}")
    expected = {limit.id for limit in limits if any(_covers(limit.scope, resource) for resource in resources)}
    windows = {limit.id: limit.window for limit in limits}
    held = {hold.limit for hold in ticket.holds}
    require(held == expected, f"{ticket.request_id}: holds in {sorted(held)}, its limits are {sorted(expected)}")
    for hold in ticket.holds:
        share = state.shares.get(hold.allowance)
        where = f"{ticket.request_id}: hold in {hold.allowance}"
        if share is None:
            require(hold.limit in known.deleted, f"{where}: the ledger knows no such allowance")
            continue
        require(not share.is_closed, f"{where}: the ledger has closed it")
        require(
            now_ms + CHECK_TIMEOUT_MS <= share.term_end_ms, f"{where}: {now_ms - share.term_end_ms} ms past its term"
        )
        length_ms = _LENGTH_MS.get(windows[hold.limit])
        is_current = length_ms is None or share.window_start_ms == now_ms - now_ms % length_ms
        require(is_current, f"{where}: it counts in the window that began at {share.window_start_ms}, now is {now_ms}")
        window_end_ms = state.accounts[share.key].window_end_ms
        require(
            share.window_start_ms <= now_ms and (window_end_ms is None or now_ms < window_end_ms),
            f"{where}: its window is not open",
        )


def check_place(work: Work, replica: Replica, rules: Rules) -> None:
    """G2: a request is served only where its tenant's rule and its own hint allow."""
    place = replica.place.label if replica.place else ""
    request = work.request
    require(
        rules.permits(request.principal.tenant, request.hints.residency, place),
        f"{request.id} of {request.principal.tenant} was served in {place!r},"
        f" allowed {sorted(rules.allow[request.principal.tenant])}, hint {sorted(request.hints.residency)}",
    )


def check_charge(charge: ChargeState, truth: Truth, share: ShareState | None) -> None:
    """A charge is never above its hold."""
    held = truth.held_by(charge.request_id, charge.share)
    require(charge.amount <= held, f"{charge.request_id}: charged {charge.amount} of {charge.limit}, held {held}")
    del share


def check_settled(state: LedgerState, truth: Truth, exact: "set[str]") -> None:
    """In the end: every request that was served is charged once, never below its use, and exactly when it is known.

    Where the router died between a node's report and its own, the log charges an upper bound, for which the allowance
    may be too small: then the allowance is charged in full, and its requests are covered together.
    """
    used_in: dict[str, int] = defaultdict(int)
    charged_in: dict[str, int] = defaultdict(int)
    for one in state.charges.values():
        charged_in[one.share] += one.amount
    for work in truth.works.values():
        for hold in work.ticket.holds:
            used_in[hold.allowance] += work.used(hold)
    for work in truth.works.values():
        for hold in work.ticket.holds:
            share = state.shares.get(hold.allowance)
            if hold.unit == IN_FLIGHT or share is None:
                continue
            used = work.used(hold)
            charge = state.charges.get((work.request.id, hold.limit))
            where = f"{work.request.id}, limit {hold.limit}"
            if charge is None:
                require(not used or work.is_lost, f"{where}: used {used} and was never charged")
                require(not used or share.written_off > 0, f"{where}: used {used}, lost, and not written off")
                continue
            if share.written_off == 0 and charge.amount < used:
                is_covered = charge.amount + charge.overrun >= used and charged_in[share.id] >= used_in[share.id]
                require(is_covered, f"{where}: used {used}, charged {charge.amount}")
            elif share.written_off == 0 and work.request.id in exact:
                require(charge.amount == used, f"{where}: used exactly {used}, charged {charge.amount}")


def check_end(state: LedgerState) -> None:
    """In the end every allowance is accounted for."""
    for account in state.accounts.values():
        require(
            account.allotted == 0,
            f"limit {account.limit} window {account.window_start_ms}: {account.allotted} allotted for ever",
        )


def _covers(scope: str, resource: str) -> bool:
    return resource == scope or resource.startswith(scope + "/")
