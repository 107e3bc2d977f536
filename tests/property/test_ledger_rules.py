"""The rules of the ledger and of a router's book, driven at random: what must hold after every step."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from enginehouse.contract import InternalError
from enginehouse.router.limits import (
    EVER,
    TOKENS,
    USD,
    Account,
    Book,
    Demand,
    Limit,
    Share,
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


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "America/Havana", "Asia/Kolkata", "Pacific/Apia", "Asia/Beirut")
KINDS = (
    ledger_pb2.LIMIT_WINDOW_NONE,
    ledger_pb2.LIMIT_WINDOW_MINUTE,
    ledger_pb2.LIMIT_WINDOW_HOUR,
    ledger_pb2.LIMIT_WINDOW_DAY,
    ledger_pb2.LIMIT_WINDOW_MONTH,
)


@given(
    now_ms=st.integers(1_300_000_000_000, 2_200_000_000_000), zone=st.sampled_from(ZONES), kind=st.sampled_from(KINDS)
)
def test_windows_contain_their_moment_and_follow_each_other(
    now_ms: int, zone: str, kind: ledger_pb2.LimitWindow.ValueType
) -> None:
    limit = Limit("l", "o", USD, kind, 1, zone)
    window = window_at(limit, now_ms)
    assert window.contains(now_ms)
    assert window_at(limit, window.start_ms) == window
    if window.end_ms is not None:
        assert window_at(limit, window.end_ms - 1) == window
        assert window_at(limit, window.end_ms).start_ms == window.end_ms
