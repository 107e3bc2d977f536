"""Planted faults: each breaks one rule of the product, and the simulation must notice."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from unittest import mock

from enginehouse.router import View, limits
from enginehouse.router import settle as settle_by_rule
from enginehouse.router.filters import FILTERS
from enginehouse.router.limits import IN_FLIGHT, Account, Book, BookShare, Window, ledger
from enginehouse.services.control import access_logs, allowances, charges
from enginehouse.services.control.accounts import LockedAccounts
from enginehouse.services.control.doubt import DoubtResolver
from enginehouse.services.control.rows import insert_missing
from enginehouse.services.control.schema import RouterRow
from enginehouse.services.control.settings import ControlSettings
from enginehouse.services.router import settlement
from tests.simulation import router as simulated_router
from tests.simulation.router import RouterProcess

Patches = list[Any]

Foreign: TypeAlias = Any
"""Something of the product that a fault passes on as it is."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule, broken.

    Attributes:
        breaks: what is wrong then.
        patches: puts it in place.
        seeds_max: how many seeds the simulation may take to find it.
    """

    breaks: str
    patches: Callable[[], Patches]
    seeds_max: int = 60


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The product with one fault."""
    with ExitStack() as stack:
        for patch in FAULTS[name].patches():
            stack.enter_context(patch)
        yield


def _charge_twice() -> Patches:
    once = LockedAccounts.charge

    def charge(self: LockedAccounts, *args: Foreign) -> object:
        once(self, *args)
        return once(self, *args)

    return [mock.patch.object(LockedAccounts, "charge", charge)]


def _forget_charges() -> Patches:
    row, numbers = charges._row, iter(range(10**9))

    async def nothing(*_args: object) -> set[tuple[str, str]]:
        return set()

    def another(charge: Foreign, *args: Foreign) -> Foreign:
        return row(replace(charge, request_id=f"{charge.request_id}#{next(numbers)}"), *args)

    return [mock.patch.object(charges, "_known", nothing), mock.patch.object(charges, "_row", another)]


def _hold_past_the_term() -> Patches:
    def is_usable(self: BookShare, now_ms: int) -> bool:
        return self.usable_from_ms <= now_ms

    return [mock.patch.object(BookShare, "is_usable", is_usable)]


def _sleep_through_the_term() -> Patches:
    awake = RouterProcess.boot_ms

    def boot_ms(self: RouterProcess) -> int:
        return awake(self) - round(self.process.slept_s * 1000)

    return [mock.patch.object(RouterProcess, "boot_ms", boot_ms)]


def _no_margin() -> Patches:
    return [mock.patch.object(simulated_router, "MARGIN_MS", 0)]


def _no_fence() -> Patches:
    async def check(*_args: object) -> None:
        """Everybody is welcome."""

    return [mock.patch.object(allowances, "check_fence", check)]


def _same_fence() -> Patches:
    enroll = allowances.enroll

    async def again(transaction: Foreign, router: str, now: Foreign) -> int:
        row = await transaction.session.get(RouterRow, router)
        return row.fence if row is not None else await enroll(transaction, router, now)

    return [mock.patch.object(allowances, "enroll", again)]


def _grant_above_the_cap() -> Patches:
    lease = ledger.lease

    def more(account: Account, share: Foreign, amount: int, term_end_ms: int) -> Foreign:
        room = account.spent + account.allotted + amount
        return lease(
            replace(account, cap_effective=max(account.cap_effective, room)), share, min(amount, 10**18), term_end_ms
        )

    return [
        mock.patch.object(Account, "left", property(lambda account: max(0, account.cap_target - account.allotted))),
        mock.patch.object(limits, "lease", more),
    ]


def _raise_on_lower() -> Patches:
    def set_cap(account: Account, cap: int) -> Account:
        return replace(account, cap_target=cap, cap_effective=max(cap, account.cap_effective))

    return [mock.patch.object(limits, "set_cap", set_cap)]


def _free_the_doubt() -> Patches:
    return [mock.patch.object(DoubtResolver, "_is_complete", return_value=True)]


def _forgive() -> Patches:
    return [mock.patch.object(LockedAccounts, "write_off", LockedAccounts.close)]


def _no_doubt() -> Patches:
    return [mock.patch.object(ControlSettings, "doubt_ms", property(lambda _settings: 0))]


def _lose_log_lines() -> Patches:
    async def nothing(*_args: object, **_options: object) -> None:
        """Takes nothing in."""

    return [mock.patch.object(access_logs, "charge_or_note", nothing)]


def _settle_below_use() -> Patches:
    settle = settle_by_rule

    def half(ticket: Foreign, ending: Foreign) -> Foreign:
        settled = settle(ticket, ending)
        return replace(settled, used={limit: amount // 2 for limit, amount in settled.used.items()})

    return [mock.patch.object(settlement, "settle", half)]


def _settle_above_use() -> Patches:
    settle = settle_by_rule

    def more(ticket: Foreign, ending: Foreign) -> Foreign:
        settled = settle(ticket, ending)
        return replace(settled, used={limit: amount + 1 for limit, amount in settled.used.items()})

    return [mock.patch.object(settlement, "settle", more)]


def _leak_slots() -> Patches:
    settle = Book.settle

    def leaky(self: Book, request_id: str, *args: Foreign) -> Foreign:
        slots = [held for held in self.holds_of(request_id) if held.limit == "slots"]
        dues = settle(self, request_id, *args)
        for held in slots:
            self._shares[held.share].held += held.amount
        return dues

    return [mock.patch.object(Book, "settle", leaky)]


def _keep_slots_for_ever() -> Patches:
    close = LockedAccounts.close

    def keep(self: LockedAccounts, share_id: str) -> None:
        row = self.share(share_id)
        if row is None or self.unit(row.limit_id) != IN_FLIGHT:
            close(self, share_id)

    return [mock.patch.object(LockedAccounts, "close", keep)]


def _wrong_window() -> Patches:
    window_at = limits.window_at

    def earlier(limit: Foreign, now_ms: int) -> Window:
        return Window(window_at(limit, now_ms - 60_000).start_ms, window_at(limit, now_ms).end_ms)

    return [mock.patch.object(allowances, "window_at", earlier)]


def _short_lived_shares() -> Patches:
    lease = LockedAccounts.lease

    def shorter(self: LockedAccounts, share_id: str, amount: int, term_end_ms: int) -> None:
        lease(self, share_id, amount, term_end_ms - 8_000)

    allowance = allowances._allowance

    def longer(*args: Foreign, **options: Foreign) -> Foreign:
        told = allowance(*args, **options)
        told.term.FromMilliseconds(told.term.ToMilliseconds() + 8_000)
        return told

    return [mock.patch.object(LockedAccounts, "lease", shorter), mock.patch.object(allowances, "_allowance", longer)]


def _count_a_lease_twice() -> Patches:
    add = Book.add

    def twice(self: Book, *, amount: int, **share: Foreign) -> None:
        add(self, amount=2 * amount, **share)

    return [mock.patch.object(Book, "add", twice)]


def _keep_what_is_returned() -> Patches:
    def take_free(self: Book, share: str, keep: int = 0) -> int:
        return max(0, self._shares[share].free - keep)

    return [mock.patch.object(Book, "take_free", take_free)]


def _repeat_releases() -> Patches:
    async def insert(session: Foreign, row: Foreign) -> bool:
        await insert_missing(session, row)
        return True

    return [mock.patch.object(allowances, "insert_missing", insert)]


def _count_a_return_twice() -> Patches:
    give_back = LockedAccounts.give_back

    def twice(self: LockedAccounts, share_id: str, amount: int) -> None:
        give_back(self, share_id, 2 * amount)

    return [mock.patch.object(LockedAccounts, "give_back", twice)]


def _no_residency() -> Patches:
    rule = next(rule for rule in FILTERS if rule.name == "residency")
    return [mock.patch.object(type(rule), "drop", return_value=None)]


def _skip_a_limit() -> Patches:
    limits_over = View.limits_over

    def fewer(self: View, *args: Foreign) -> Foreign:
        return limits_over(self, *args)[:-1]

    return [mock.patch.object(View, "limits_over", fewer)]


FAULTS: Mapping[str, Fault] = {
    "charge twice": Fault("a charge is taken from the account twice", _charge_twice),
    "forget charges": Fault("a request that was charged is charged again by its log line", _forget_charges),
    "hold past the term": Fault("a router holds in an allowance whose term is over", _hold_past_the_term),
    "sleep through the term": Fault("a router's clock stands still while it is stopped", _sleep_through_the_term, 300),
    "no margin": Fault("a router holds to the last moment of the term", _no_margin),
    "no fence": Fault("an older process may lease beside its successor", _no_fence),
    "same fence": Fault("a new process of a router gets the fence of the old one", _same_fence),
    "grant above the cap": Fault("what is spent does not count when there is something to lease", _grant_above_the_cap),
    "raise on lower": Fault("a lowered cap leaves the effective cap where it was", _raise_on_lower),
    "free the doubt": Fault("an allowance is freed though a log has a gap", _free_the_doubt),
    "forgive": Fault("what nobody can account for is freed", _forgive),
    "no doubt": Fault("an allowance ends with its term, while its requests run", _no_doubt, 300),
    "lose log lines": Fault("control forgets what the shipped logs say", _lose_log_lines),
    "settle below use": Fault("a router charges half of what was used", _settle_below_use),
    "settle above use": Fault("a router charges more than was used", _settle_above_use),
    "leak slots": Fault("a slot in flight stays held when its request has ended", _leak_slots),
    "keep slots for ever": Fault("a dead router's slots are never freed", _keep_slots_for_ever),
    "wrong window": Fault("requests count in the window before", _wrong_window),
    "short-lived shares": Fault("control ends allowances before the term that it told", _short_lived_shares),
    "count a lease twice": Fault("a router takes each lease for twice as much", _count_a_lease_twice),
    "keep what is returned": Fault("a router goes on holding in what it gave back", _keep_what_is_returned),
    "repeat releases": Fault("the same release gives back as often as it arrives", _repeat_releases),
    "count a return twice": Fault("what is given back or recalled counts twice", _count_a_return_twice),
    "no residency": Fault("residency is not checked", _no_residency),
    "skip a limit": Fault("one of the limits that cover a request is not held in", _skip_a_limit),
}
"""By name."""
