"""The ledger's rules: what may be leased, what is charged, and what becomes of a dead router's share.

Pure: every function takes rows and returns new rows. The database applies the same invariant once more as a CHECK:
``spent + allotted <= cap_effective``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from enginehouse.contract import InternalError
from enginehouse.router.limits.limit import Limit
from enginehouse.router.limits.window import Window, cap_in

CHUNK_DIVISOR = 20
"""A router leases a twentieth (5 %) of what is left, so that no router can starve the others of it."""

THRESHOLDS_PERCENT = (50, 80, 100)


@dataclass(frozen=True, slots=True)
class Account:
    """One limit in one window. Amounts are in the limit's unit and never negative.

    Attributes:
        spent: charged for good.
        allotted: leased to routers and not yet charged or returned; every hold is inside it.
        cap_target: what the limit says.
        cap_effective: what is enforced: the target, or what was given already when the target was lowered. It only
            falls.
        overrun: used beyond holds, reported and not charged.
        written_off: the part of `spent` that was charged because nobody knew better.
    """

    limit: str
    window: Window
    spent: int
    allotted: int
    cap_target: int
    cap_effective: int
    overrun: int = 0
    written_off: int = 0

    @property
    def left(self) -> int:
        """What can still be leased."""
        return max(0, self.cap_target - self.spent - self.allotted)


@dataclass(frozen=True, slots=True)
class Share:
    """One router process's part of an account's `allotted`.

    Attributes:
        id: "<fence>.<limit>.<window start>".
        remaining: leased and neither charged nor returned.
        term_end_ms: after this the router no longer holds in it.
        is_closed: resolved; late charges change nothing any more.
    """

    id: str
    router: str
    fence: int
    limit: str
    window: Window
    remaining: int
    term_end_ms: int
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """What a router wants of one limit: `amount_min` or nothing, `amount_want` if it can be had.

    `amount_ahead` is what it would like of each window that begins within the term.
    """

    limit: str
    amount_min: int
    amount_want: int
    amount_ahead: int = 0


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a demand was refused."""

    limit: str
    amount_min: int
    amount_left: int


def open_account(limit: Limit, window: Window) -> Account:
    """A new account, with nothing spent."""
    cap = cap_in(limit, window)
    return Account(limit.id, window, spent=0, allotted=0, cap_target=cap, cap_effective=cap)


def share_id(fence: int, limit: str, window: Window) -> str:
    """The id of a router process's share."""
    return f"{fence}.{limit}.{window.start_ms}"


def chunk(demand: Demand, left: int) -> int:
    """How much to lease of `left`, which is at least `demand.amount_min`.

    A twentieth of what is left while that is plenty; near the cap exactly what is asked, so that the last of a budget
    can be spent by whoever needs it.
    """
    if not demand.amount_min and not demand.amount_want:
        return 0  # only to prolong
    plenty = left // CHUNK_DIVISOR
    return min(left, max(demand.amount_min, min(demand.amount_want, left), plenty))


def chunk_ahead(demand: Demand, left: int) -> int:
    """How much to lease of a window that has not begun: what is asked, and never more than half of what is left.

    The other half is for those who come later; what turns out to be unused in the window is recalled then.
    """
    return min(demand.amount_ahead, -(-left // 2))


def grant(accounts: Mapping[str, Account], demands: Sequence[Demand]) -> dict[str, int] | list[Shortage]:
    """Decides on several demands, all or nothing: the amount for each limit, or every shortage."""
    if len({demand.limit for demand in demands}) < len(demands):
        raise InternalError("several demands on one limit would each be granted the same remainder")
    shortages = [
        Shortage(demand.limit, demand.amount_min, accounts[demand.limit].left)
        for demand in demands
        if accounts[demand.limit].left < demand.amount_min
    ]
    if shortages:
        return shortages
    return {demand.limit: chunk(demand, accounts[demand.limit].left) for demand in demands}


def lease(account: Account, share: Share, amount: int, term_end_ms: int) -> tuple[Account, Share]:
    """Moves `amount` into `share` and prolongs it."""
    if share.is_closed:
        raise InternalError(f"share {share.id} is closed; what it leased could never be charged")
    if amount > account.left:
        raise InternalError(f"limit {account.limit}: {amount} is more than the {account.left} that is left")
    return (
        replace(account, allotted=account.allotted + amount),
        replace(share, remaining=share.remaining + amount, term_end_ms=max(share.term_end_ms, term_end_ms)),
    )


def charge(account: Account, share: Share, amount: int, overrun: int = 0) -> tuple[Account, Share]:
    """Charges `amount` of `share` for good. What exceeds the share was never held: it counts as overrun.

    A share that is closed has been charged in full already, so nothing is charged twice.
    """
    if share.is_closed:
        return replace(account, overrun=account.overrun + overrun), share
    charged = min(amount, share.remaining)
    return (
        _settled(
            account,
            spent=account.spent + charged,
            allotted=account.allotted - charged,
            overrun=account.overrun + overrun + amount - charged,
        ),
        replace(share, remaining=share.remaining - charged),
    )


def give_back(account: Account, share: Share, amount: int) -> tuple[Account, Share]:
    """Returns `amount` of `share`, or what it still has if that is less."""
    if share.is_closed:
        return account, share
    returned = min(amount, share.remaining)
    return (
        _settled(account, spent=account.spent, allotted=account.allotted - returned, overrun=account.overrun),
        replace(share, remaining=share.remaining - returned),
    )


def close(account: Account, share: Share) -> tuple[Account, Share]:
    """Ends the doubt about a share whose logs are complete: what nobody charged was not used."""
    account, share = give_back(account, share, share.remaining)
    return account, replace(share, is_closed=True)


def write_off(account: Account, share: Share) -> tuple[Account, Share]:
    """Ends the doubt about a share whose logs have a gap: all that is left is charged. Never forgiven silently."""
    doubt = share.remaining
    account, share = charge(account, share, doubt)
    return replace(account, written_off=account.written_off + doubt), replace(share, is_closed=True)


def set_cap(account: Account, cap: int) -> Account:
    """Raises or lowers the cap. Below what is given already, the effective cap falls as charges and returns let it."""
    return replace(account, cap_target=cap, cap_effective=max(cap, account.spent + account.allotted))


def thresholds_passed(before: Account, after: Account) -> list[int]:
    """The per cents of the cap that were not reached `before` and are `after`, by spending or by a lower cap."""
    return [percent for percent in THRESHOLDS_PERCENT if _reached(after, percent) and not _reached(before, percent)]


def _reached(account: Account, percent: int) -> bool:
    return account.spent * 100 >= percent * account.cap_target


def _settled(account: Account, *, spent: int, allotted: int, overrun: int) -> Account:
    cap_effective = min(account.cap_effective, max(account.cap_target, spent + allotted))
    return replace(account, spent=spent, allotted=allotted, overrun=overrun, cap_effective=cap_effective)
