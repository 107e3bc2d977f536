"""A router's own book: the shares it leased, and what it holds in them, in memory, all or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from enginehouse.contract import InternalError

_CLOSE_MS = 1000
"""Answers take different times to come, so two calculations of one moment differ by a little."""


@dataclass(frozen=True, slots=True)
class Held:
    """One request's part of one share, in the limit's unit."""

    limit: str
    share: str
    window_start_ms: int
    amount: int


@dataclass(frozen=True, slots=True)
class Due:
    """What a finished request owes the ledger: `amount` of its hold, and what it used beyond.

    `deployment` did the work; empty when that is not known.
    """

    request_id: str
    limit: str
    share: str
    amount: int
    overrun: int
    deployment: str = ""


@dataclass(slots=True)
class BookShare:
    """A share as the router knows it. `usable_*` and `window_until_ms` are on the router's boot-time clock.

    `window_until_ms` is when its window ends. None: it has none.
    """

    id: str
    limit: str
    window_start_ms: int
    amount: int
    usable_until_ms: int
    usable_from_ms: int = 0
    window_until_ms: int | None = None
    held: int = 0

    @property
    def free(self) -> int:
        """What is neither held nor charged."""
        return self.amount - self.held

    @property
    def ends_by_term(self) -> bool:
        """Whether its term ends before its window does, so that it is worth prolonging."""
        return self.window_until_ms is None or self.usable_until_ms + _CLOSE_MS < self.window_until_ms

    def is_usable(self, now_ms: int) -> bool:
        """Whether its window has begun, and neither that nor its term has ended."""
        return self.usable_from_ms <= now_ms < self.usable_until_ms


@dataclass(slots=True)
class Book:
    """Shares by id and by limit, and the holds of requests that are not settled."""

    _shares: dict[str, BookShare] = field(default_factory=dict)
    _of_limit: dict[str, list[BookShare]] = field(default_factory=dict)
    _current: dict[str, BookShare] = field(default_factory=dict)
    _holds: dict[str, tuple[Held, ...]] = field(default_factory=dict)

    def add(
        self,
        *,
        share: str,
        limit: str,
        window_start_ms: int,
        amount: int,
        usable_until_ms: int,
        usable_from_ms: int = 0,
        window_until_ms: int | None = None,
    ) -> None:
        """Takes in what the ledger leased: a new share, or more of a known one with a later end."""
        known = self._shares.get(share)
        if known is None:
            known = BookShare(share, limit, window_start_ms, 0, usable_until_ms, usable_from_ms, window_until_ms)
            self._shares[share] = known
            self._of_limit.setdefault(limit, []).append(known)
            self._current.pop(limit, None)
        known.amount += amount
        known.usable_until_ms = max(known.usable_until_ms, usable_until_ms)

    def headroom(self, limit: str, now_ms: int) -> int:
        """What can be held of `limit` now. 0 past the end of the term or of the window."""
        share = self.usable(limit, now_ms)
        return 0 if share is None else share.free

    def usable(self, limit: str, now_ms: int) -> BookShare | None:
        """The share in which can be held now: of the window that is open, the one that came last. Read only."""
        share = self._current.get(limit)
        if share is not None and share.is_usable(now_ms):
            return share
        for share in reversed(self._of_limit.get(limit, ())):
            if share.is_usable(now_ms):
                self._current[limit] = share
                return share
        return None

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
            share = self._current[limit]  # which headroom has just found
            share.held += amount
            held.append(Held(limit, share.id, share.window_start_ms, amount))
        self._holds[request_id] = tuple(held)
        return self._holds[request_id]

    def holds_of(self, request_id: str) -> tuple[Held, ...]:
        """What the request holds; empty when it never did or is settled."""
        return self._holds.get(request_id, ())

    def settle(self, request_id: str, used: Mapping[str, int], deployment: str = "") -> list[Due]:
        """Ends a request's holds, exactly once: a second call finds nothing and returns nothing.

        Args:
            request_id: whose holds.
            used: by limit, in its unit; a limit that is not named used nothing.
            deployment: which did the work. Empty: it is not known.

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
                dues.append(Due(request_id, held.limit, held.share, amount, overrun, deployment))
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

    def shares_of(self, limit: str) -> tuple[BookShare, ...]:
        """The shares of one limit. Read only."""
        return tuple(self._of_limit.get(limit, ()))

    def end(self, share: str) -> None:
        """Holds nothing more in a share, whatever its term. What is held in it stays until it is settled."""
        known = self._shares[share]
        known.usable_until_ms = min(known.usable_until_ms, known.usable_from_ms)

    def forget_spent(self, now_ms: int) -> None:
        """Drops shares that can no longer be used and hold nothing."""
        for share in self.shares():
            if share.amount == 0 and share.held == 0 and now_ms >= share.usable_until_ms:
                del self._shares[share.id]
                self._of_limit[share.limit].remove(share)
                if not self._of_limit[share.limit]:
                    del self._of_limit[share.limit]
                if self._current.get(share.limit) is share:
                    del self._current[share.limit]

    @property
    def requests_held(self) -> int:
        """How many requests hold something."""
        return len(self._holds)
