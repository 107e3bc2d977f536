"""A router's own book: the shares it leased, and what it holds in them, in memory, all or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from enginehouse.contract import InternalError


@dataclass(frozen=True, slots=True)
class Held:
    """One request's part of one share, in the limit's unit."""

    limit: str
    share: str
    window_start_ms: int
    amount: int


@dataclass(frozen=True, slots=True)
class Due:
    """What a finished request owes the ledger: `amount` of its hold, and what it used beyond."""

    request_id: str
    limit: str
    share: str
    amount: int
    overrun: int


@dataclass(slots=True)
class BookShare:
    """A share as the router knows it. `usable_until_ms` is on the router's boot-time clock."""

    id: str
    limit: str
    window_start_ms: int
    amount: int
    usable_until_ms: int
    held: int = 0

    @property
    def free(self) -> int:
        """What is neither held nor charged."""
        return self.amount - self.held


@dataclass(slots=True)
class Book:
    """Shares by id, the newest share of each limit, and the holds of requests that are not settled."""

    _shares: dict[str, BookShare] = field(default_factory=dict)
    _current: dict[str, BookShare] = field(default_factory=dict)
    _holds: dict[str, tuple[Held, ...]] = field(default_factory=dict)

    def add(self, *, share: str, limit: str, window_start_ms: int, amount: int, usable_until_ms: int) -> None:
        """Takes in what the ledger leased: a new share, or more of a known one with a later end."""
        known = self._shares.get(share)
        if known is None:
            known = self._shares[share] = BookShare(share, limit, window_start_ms, 0, usable_until_ms)
        known.amount += amount
        known.usable_until_ms = max(known.usable_until_ms, usable_until_ms)
        current = self._current.get(limit)
        if current is None or window_start_ms >= current.window_start_ms:
            self._current[limit] = known

    def headroom(self, limit: str, now_ms: int) -> int:
        """What can be held of `limit` now. 0 past the end of the term or of the window."""
        share = self._current.get(limit)
        if share is None or now_ms >= share.usable_until_ms:
            return 0
        return share.free

    def hold(self, request_id: str, amounts: Mapping[str, int], now_ms: int) -> tuple[Held, ...]:
        """Holds every amount, by limit.

        Raises:
            InternalError: the request holds already, or an amount is more than the headroom. Nothing was held then.
        """
        if request_id in self._holds:
            raise InternalError(f"request {request_id} holds already")
        for limit, amount in amounts.items():
            if amount < 0 or amount > self.headroom(limit, now_ms):
                raise InternalError(f"limit {limit}: cannot hold {amount} of {self.headroom(limit, now_ms)}")
        held = []
        for limit, amount in amounts.items():
            if not amount:
                continue
            share = self._current[limit]
            share.held += amount
            held.append(Held(limit, share.id, share.window_start_ms, amount))
        self._holds[request_id] = tuple(held)
        return self._holds[request_id]

    def holds_of(self, request_id: str) -> tuple[Held, ...]:
        """What the request holds; empty when it never did or is settled."""
        return self._holds.get(request_id, ())

    def settle(self, request_id: str, used: Mapping[str, int]) -> list[Due]:
        """Ends a request's holds, exactly once: a second call finds nothing and returns nothing.

        Args:
            request_id: whose holds.
            used: by limit, in its unit; a limit that is not named used nothing.

        Returns:
            What to tell the ledger. A charge never exceeds its hold.
        """
        dues = []
        for held in self._holds.pop(request_id, ()):
            share = self._shares[held.share]
            amount = min(used.get(held.limit, 0), held.amount)
            overrun = used.get(held.limit, 0) - amount
            share.held -= held.amount
            share.amount -= amount
            if amount or overrun:
                dues.append(Due(request_id, held.limit, held.share, amount, overrun))
        return dues

    def take_free(self, share: str, keep: int = 0) -> int:
        """Takes what is free of a share beyond `keep` out of the book, to give it back to the ledger."""
        known = self._shares[share]
        amount = max(0, known.free - keep)
        known.amount -= amount
        return amount

    def shares(self) -> tuple[BookShare, ...]:
        """Every share that is known. Read only."""
        return tuple(self._shares.values())

    def forget_spent(self, now_ms: int) -> None:
        """Drops shares that can no longer be used and hold nothing."""
        for share in self.shares():
            if share.amount == 0 and share.held == 0 and now_ms >= share.usable_until_ms:
                del self._shares[share.id]
                if self._current.get(share.limit) is share:
                    del self._current[share.limit]

    @property
    def requests_held(self) -> int:
        """How many requests hold something."""
        return len(self._holds)
