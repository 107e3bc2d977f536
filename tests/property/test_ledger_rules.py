"""The rules of the ledger and of a router's book, driven at random: what must hold after every step."""

from dataclasses import replace
from datetime import datetime
from functools import cache
from itertools import islice, pairwise
from operator import add
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from enginehouse.contract import InternalError
from enginehouse.router.limits import (
    EVER,
    TOKENS,
    UNCAPPED,
    USD,
    Account,
    Book,
    Demand,
    Limit,
    Share,
    cap_in,
    charge,
    close,
    give_back,
    grant,
    lease,
    open_account,
    set_cap,
    share_id,
    thresholds_passed,
    window_at,
    windows_after,
    write_off,
)
from enginehouse.v1 import ledger_pb2

LIMITS = ("budget", "tokens")
FENCES = (1, 2, 3)
AMOUNTS = st.integers(0, 120)
CAPS = st.integers(1, 400)
LIMIT_NAMES = st.sampled_from(LIMITS)
WHO = st.sampled_from(FENCES)


class LedgerMachine(RuleBasedStateMachine):
    """Accounts of two limits, and the shares of three router processes."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts: dict[str, Account] = {}
        self.shares: dict[tuple[int, str], Share] = {}
        self.leased: dict[str, int] = dict.fromkeys(LIMITS, 0)
        self.returned: dict[str, int] = dict.fromkeys(LIMITS, 0)

    @initialize(caps=st.tuples(CAPS, CAPS))
    def open(self, caps: tuple[int, int]) -> None:
        for name, cap, unit in zip(LIMITS, caps, (USD, TOKENS), strict=True):
            limit = Limit(name, "organizations/default", unit, ledger_pb2.LIMIT_WINDOW_NONE, cap)
            self.accounts[name] = open_account(limit, EVER)
            for fence in FENCES:
                self.shares[fence, name] = Share(share_id(fence, name, EVER), f"r{fence}", fence, name, EVER, 0, 0)

    @rule(fence=WHO, demands=st.dictionaries(LIMIT_NAMES, st.tuples(AMOUNTS, AMOUNTS), min_size=1))
    def acquire(self, fence: int, demands: dict[str, tuple[int, int]]) -> None:
        wanted = [Demand(name, least, want) for name, (least, want) in demands.items()]
        granted = grant(self.accounts, wanted)
        if isinstance(granted, list):
            short = {shortage.limit for shortage in granted}
            assert short == {name for name, (least, _) in demands.items() if least > self.accounts[name].left}
            assert short
            return
        assert granted.keys() == demands.keys()
        for name, amount in granted.items():
            assert demands[name][0] <= amount <= self.accounts[name].left
            if self.shares[fence, name].is_closed:
                continue
            self._set(fence, name, *lease(self.accounts[name], self.shares[fence, name], amount, 100))
            self.leased[name] += amount
            given_now = self.accounts[name].spent + self.accounts[name].allotted
            assert amount == 0 or given_now <= self.accounts[name].cap_target

    @rule(fence=WHO, name=LIMIT_NAMES, amount=AMOUNTS, overrun=st.integers(0, 3))
    def charge(self, fence: int, name: str, amount: int, overrun: int) -> None:
        before, share = self.accounts[name], self.shares[fence, name]
        self._set(fence, name, *charge(before, share, amount, overrun))
        inside = 0 if share.is_closed else min(amount, share.remaining)
        assert self.accounts[name].spent == before.spent + inside
        assert self.accounts[name].overrun == before.overrun + overrun + (0 if share.is_closed else amount - inside)

    @rule(fence=WHO, name=LIMIT_NAMES, amount=AMOUNTS)
    def give_back(self, fence: int, name: str, amount: int) -> None:
        before = self.shares[fence, name].remaining
        self._set(fence, name, *give_back(self.accounts[name], self.shares[fence, name], amount))
        self.returned[name] += before - self.shares[fence, name].remaining

    @rule(fence=WHO, name=LIMIT_NAMES)
    def close(self, fence: int, name: str) -> None:
        self.returned[name] += self.shares[fence, name].remaining
        spent = self.accounts[name].spent
        self._set(fence, name, *close(self.accounts[name], self.shares[fence, name]))
        assert self.shares[fence, name].is_closed
        assert self.accounts[name].spent == spent

    @rule(fence=WHO, name=LIMIT_NAMES)
    def write_off(self, fence: int, name: str) -> None:
        before, doubt = self.accounts[name], self.shares[fence, name].remaining
        self._set(fence, name, *write_off(before, self.shares[fence, name]))
        assert self.accounts[name].written_off == before.written_off + doubt
        assert self.accounts[name].spent == before.spent + doubt

    @rule(fence=WHO, name=LIMIT_NAMES)
    def start_anew(self, fence: int, name: str) -> None:
        if self.shares[fence, name].is_closed:
            self.shares[fence, name] = replace(self.shares[fence, name], is_closed=False)

    @rule(name=LIMIT_NAMES, cap=CAPS)
    def set_cap(self, name: str, cap: int) -> None:
        before = self.accounts[name]
        self.accounts[name] = set_cap(before, cap)
        assert (before.spent, before.allotted) == (self.accounts[name].spent, self.accounts[name].allotted)
        assert self.accounts[name].left == max(0, cap - before.spent - before.allotted)

    @rule(fence=WHO, name=LIMIT_NAMES, extra=st.integers(1, 50))
    def lease_too_much(self, fence: int, name: str, extra: int) -> None:
        account = self.accounts[name]
        try:
            lease(account, self.shares[fence, name], account.left + extra, 100)
        except InternalError:
            return
        raise AssertionError("more was leased than was left")

    @invariant()
    def never_over_the_cap(self) -> None:
        for account in self.accounts.values():
            given = account.spent + account.allotted
            assert given <= account.cap_effective
            assert account.cap_effective == max(account.cap_target, given)

    @invariant()
    def shares_are_what_is_allotted(self) -> None:
        for name, account in self.accounts.items():
            assert account.allotted == sum(
                share.remaining for (_, limit), share in self.shares.items() if limit == name
            )
            assert self.leased[name] == account.spent + account.allotted + self.returned[name]

    @invariant()
    def nothing_is_negative(self) -> None:
        for account in self.accounts.values():
            assert min(account.spent, account.allotted, account.overrun, account.written_off, account.left) >= 0
            assert account.written_off <= account.spent
        for share in self.shares.values():
            assert share.remaining >= 0
            assert not share.is_closed or share.remaining == 0

    def _set(self, fence: int, name: str, account: Account, share: Share) -> None:
        before = self.accounts[name]
        assert account.cap_effective <= before.cap_effective
        assert account.spent >= before.spent
        self.accounts[name] = account
        self.shares[fence, name] = share


class BookMachine(RuleBasedStateMachine):
    """One router's book beside the ledger's account, as they stand when every answer has arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.account = open_account(
            Limit("budget", "organizations/default", USD, ledger_pb2.LIMIT_WINDOW_NONE, 1000), EVER
        )
        self.share = Share(share_id(1, "budget", EVER), "r1", 1, "budget", EVER, 0, 0)
        self.requests = 0
        self.open: dict[str, int] = {}

    @rule(least=AMOUNTS, want=AMOUNTS)
    def acquire(self, least: int, want: int) -> None:
        granted = grant({"budget": self.account}, [Demand("budget", least, want)])
        if isinstance(granted, dict):
            self.account, self.share = lease(self.account, self.share, granted["budget"], 100)
            self.book.add(
                share=self.share.id, limit="budget", window_start_ms=0, amount=granted["budget"], usable_until_ms=100
            )

    @rule(amount=st.integers(1, 120))
    def hold(self, amount: int) -> None:
        if amount <= self.book.headroom("budget", 0):
            self.requests += 1
            self.open[f"q{self.requests}"] = amount
            self.book.hold(f"q{self.requests}", {"budget": amount}, 0)

    @precondition(lambda self: self.open)
    @rule(used=AMOUNTS, data=st.data())
    def settle(self, used: int, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.open)))
        held = self.open.pop(request_id)
        before = self.account
        for due in self.book.settle(request_id, {"budget": used}):
            self.account, self.share = charge(self.account, self.share, due.amount, due.overrun)
        assert self.account.spent == before.spent + min(used, held)
        assert self.account.overrun == before.overrun + max(0, used - held)
        assert self.book.settle(request_id, {"budget": used}) == []

    @rule()
    def release(self) -> None:
        for share in self.book.shares():
            self.account, self.share = give_back(self.account, self.share, self.book.take_free(share.id))

    @invariant()
    def spent_and_held_never_exceed_the_cap(self) -> None:
        assert self.account.spent + sum(self.open.values()) <= self.account.cap_effective

    @invariant()
    def the_book_and_the_ledger_agree(self) -> None:
        assert sum(share.amount for share in self.book.shares()) == self.share.remaining
        assert sum(share.held for share in self.book.shares()) == sum(self.open.values())
        assert self.book.requests_held == len(self.open)


TestLedgerRules = LedgerMachine.TestCase
TestLedgerRules.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
TestBookRules = BookMachine.TestCase
TestBookRules.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


@given(cap=st.integers(1, 10**18), charges=st.lists(st.integers(0, 10**17), max_size=30))
def test_each_threshold_is_passed_once_and_only_when_it_is_reached(cap: int, charges: list[int]) -> None:
    account = open_account(Limit("budget", "o", USD, ledger_pb2.LIMIT_WINDOW_NONE, cap), EVER)
    passed: list[int] = []
    for amount in charges:
        part = min(amount, cap - account.spent)
        after = replace(account, spent=account.spent + part)
        passed += thresholds_passed(account, after)
        account = after
    assert passed == [percent for percent in (50, 80, 100) if account.spent * 100 >= percent * cap]


ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # clocks change at midnight
    "America/St_Johns",  # half an hour off, and until 2011 clocks changed at a minute past midnight
    "Asia/Kolkata",
    "Asia/Kathmandu",  # three quarters of an hour off
    "Australia/Lord_Howe",  # clocks change by half an hour
    "Antarctica/Troll",  # by two hours
    "Africa/Casablanca",  # four times in some years
    "Pacific/Apia",  # left out a day in 2011
    "Asia/Beirut",
    "America/Scoresbysund",  # clocks went over midnight in 2024
)
KINDS = (
    ledger_pb2.LIMIT_WINDOW_NONE,
    ledger_pb2.LIMIT_WINDOW_MINUTE,
    ledger_pb2.LIMIT_WINDOW_HOUR,
    ledger_pb2.LIMIT_WINDOW_DAY,
    ledger_pb2.LIMIT_WINDOW_MONTH,
)
FIRST_MS, LAST_MS = 1_100_000_000_000, 2_000_000_000_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


def local(moment_ms: int, zone: str) -> datetime:
    return datetime.fromtimestamp(moment_ms / 1000, ZoneInfo(zone))


@cache
def changes(zone: str) -> tuple[int, ...]:
    """The moments at which the zone's clocks change."""
    found = []
    for start_ms in range(FIRST_MS, LAST_MS, 7 * DAY_MS):
        low, high = start_ms, start_ms + 7 * DAY_MS
        if local(low, zone).utcoffset() == local(high, zone).utcoffset():
            continue
        before = local(low, zone).utcoffset()
        while high - low > 1000:
            middle = (low + high) // 2000 * 1000
            low, high = (middle, high) if local(middle, zone).utcoffset() == before else (low, middle)
        found.append(high)
    return tuple(found)


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, int]:
    """A zone and a moment, often one close to a change of its clocks."""
    zone = draw(st.sampled_from(ZONES))
    anywhere = st.integers(FIRST_MS, LAST_MS)
    if not changes(zone):
        return zone, draw(anywhere)
    close = st.builds(add, st.sampled_from(changes(zone)), st.integers(-DAY_MS, DAY_MS))
    return zone, draw(st.one_of(close, anywhere))


@given(moment=moments(), kind=st.sampled_from(KINDS))
@settings(max_examples=500, deadline=None)
def test_windows_contain_their_moment_and_follow_each_other(
    moment: tuple[str, int], kind: ledger_pb2.LimitWindow.ValueType
) -> None:
    zone, now_ms = moment
    limit = Limit("l", "o", USD, kind, 1, zone)
    window = window_at(limit, now_ms)
    assert window.contains(now_ms)
    assert window_at(limit, window.start_ms) == window
    if window.end_ms is not None:
        assert window_at(limit, window.end_ms - 1) == window
        assert window_at(limit, window.end_ms).start_ms == window.end_ms
        assert window_at(limit, window.start_ms - 1).end_ms == window.start_ms


@given(moment=moments())
@settings(max_examples=300, deadline=None)
def test_days_and_months_begin_with_the_first_moment_of_their_local_date(moment: tuple[str, int]) -> None:
    zone, now_ms = moment
    day = window_at(Limit("l", "o", USD, ledger_pb2.LIMIT_WINDOW_DAY, 1, zone), now_ms)
    month = window_at(Limit("l", "o", USD, ledger_pb2.LIMIT_WINDOW_MONTH, 1, zone), now_ms)
    assert day.end_ms is not None
    assert month.end_ms is not None
    today = local(day.start_ms, zone).date()
    # a date that has begun goes on when clocks go back over its midnight, so no later date has come before it
    for earlier_ms in range(day.start_ms - 1, day.start_ms - 6 * HOUR_MS, -15 * MINUTE_MS):
        assert local(earlier_ms, zone).date() < today
    for later_ms in range(day.start_ms, day.end_ms, 15 * MINUTE_MS):
        assert local(later_ms, zone).date() <= today
    assert local(day.end_ms, zone).date() > today
    assert month.start_ms <= day.start_ms < day.end_ms <= month.end_ms
    assert local(month.start_ms - 1, zone).month != local(month.start_ms, zone).month
    assert 20 * HOUR_MS <= day.end_ms - day.start_ms <= 28 * HOUR_MS


@given(moment=moments(), kind=st.sampled_from((ledger_pb2.LIMIT_WINDOW_MINUTE, ledger_pb2.LIMIT_WINDOW_HOUR)))
@settings(max_examples=300, deadline=None)
def test_minutes_and_hours_begin_on_the_local_clock_and_are_never_longer(
    moment: tuple[str, int], kind: ledger_pb2.LimitWindow.ValueType
) -> None:
    zone, now_ms = moment
    window = window_at(Limit("l", "o", USD, kind, 1, zone), now_ms)
    length_ms = MINUTE_MS if kind == ledger_pb2.LIMIT_WINDOW_MINUTE else HOUR_MS
    assert window.end_ms is not None
    assert window.end_ms - window.start_ms <= length_ms
    is_cut = any(change in (window.start_ms, window.end_ms) for change in changes(zone))
    assert is_cut or window.end_ms - window.start_ms == length_ms
    start = local(window.start_ms, zone)
    assert is_cut or (start.second, start.minute if length_ms == HOUR_MS else 0) == (0, 0)


@pytest.mark.parametrize(
    ("zone", "now", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T10:00:00+02:00", 23),
        ("Europe/Berlin", "2026-10-25T10:00:00+01:00", 25),
        ("Australia/Lord_Howe", "2026-10-04T10:00:00+11:00", 23.5),
        ("Australia/Lord_Howe", "2026-04-05T10:00:00+10:30", 24.5),
        ("Asia/Kathmandu", "2026-10-25T10:00:00+05:45", 24),
        ("America/Havana", "2026-03-08T10:00:00-04:00", 23),
        ("Antarctica/Troll", "2026-03-29T10:00:00+02:00", 22),
    ],
)
def test_a_day_in_which_clocks_change_is_shorter_or_longer(zone: str, now: str, hours: float) -> None:
    limit = Limit("l", "o", USD, ledger_pb2.LIMIT_WINDOW_DAY, 1, zone)
    window = window_at(limit, int(datetime.fromisoformat(now).timestamp() * 1000))
    assert window.end_ms is not None
    assert window.end_ms - window.start_ms == hours * HOUR_MS


@given(
    moment=moments(),
    kind=st.sampled_from(KINDS),
    start=st.none() | st.integers(-40 * DAY_MS, 40 * DAY_MS),
    end=st.none() | st.integers(1, 80 * DAY_MS),
    probe=st.integers(-100 * DAY_MS, 100 * DAY_MS),
)
@settings(max_examples=300, deadline=None)
def test_a_period_cuts_windows_and_nothing_is_capped_outside_it(
    moment: tuple[str, int],
    kind: ledger_pb2.LimitWindow.ValueType,
    start: int | None,
    end: int | None,
    probe: int,
) -> None:
    zone, now_ms = moment
    start_ms = None if start is None else now_ms + start
    end_ms = None if end is None else (start_ms or now_ms) + end
    limit = Limit("l", "o", USD, kind, 7, zone, start_ms, end_ms)
    at_ms = now_ms + probe
    window = window_at(limit, at_ms)
    assert window.contains(at_ms)
    is_inside = (start_ms is None or at_ms >= start_ms) and (end_ms is None or at_ms < end_ms)
    assert cap_in(limit, window) == (7 if is_inside else UNCAPPED)
    if window.end_ms is not None:
        assert window_at(limit, window.end_ms).start_ms == window.end_ms
    later = list(islice(windows_after(limit, window, at_ms + 3 * HOUR_MS), 200))
    assert all(one.end_ms == two.start_ms for one, two in pairwise([window, *later]))
