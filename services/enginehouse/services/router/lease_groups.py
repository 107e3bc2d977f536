"""Requests that wait for the ledger, in groups that need the same limits: one call answers a whole group."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from enginehouse.contract import DependencyError, Reason
from enginehouse.router import Need

WAITING_MAX = 10_000
_PAUSE_S = 0.02
"""Between two calls of a group whose limit has too little left. Whoever comes meanwhile waits for the second: an answer
is never older than the question."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The ledger had less left of a limit than was needed. Times are on the router's boot-time clock."""

    limit: str
    left: int
    seen_ms: int
    retry_after_s: float | None


@dataclass(slots=True)
class Waiter:
    """One request, and what it needs in all of each limit."""

    needs: Mapping[str, int]
    answer: "asyncio.Future[Exhausted | None]"

    def tell(self, shortage: Exhausted | None, headroom: Callable[[str], int]) -> None:
        """Answers: None when it is worth deciding again, otherwise what there is too little of."""
        if self.answer.done():
            return
        is_short = shortage is not None and self.needs[shortage.limit] > headroom(shortage.limit) + shortage.left
        self.answer.set_result(shortage if is_short else None)

    def fail(self, error: DependencyError) -> None:
        """Answers that nobody can tell."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(slots=True)
class Group:
    """Waiters that need the same limits."""

    key: tuple[str, ...]
    is_served: bool = False
    _waiters: list[Waiter] = field(default_factory=list)

    def enter(self, needs: Sequence[Need]) -> Waiter:
        """Adds a request.

        Raises:
            DependencyError: too many wait.
        """
        if len(self._waiters) >= WAITING_MAX:
            raise DependencyError("too many requests wait for an allowance; try again soon", Reason.CONTROL_UNAVAILABLE)
        waiter = Waiter({need.limit: need.amount for need in needs}, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        return waiter

    def leave(self) -> list[Waiter]:
        """Takes out everybody who waits and has not gone away."""
        waiters = [waiter for waiter in self._waiters if not waiter.answer.done()]
        self._waiters.clear()
        return waiters

    def demand(
        self, waiters: Sequence[Waiter], headroom: Callable[[str], int]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """The least that helps the first of them, and what would help them all."""
        least, wanted = {}, {}
        for limit in self.key:
            free = headroom(limit)
            least[limit] = max(0, waiters[0].needs[limit] - free)
            wanted[limit] = max(0, sum(waiter.needs[limit] for waiter in waiters) - free)
        return least, wanted

    async def pause(self) -> None:
        """Lets others come before the next call."""
        await asyncio.sleep(_PAUSE_S)


class LeaseGroups:
    """The groups that wait."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], Group] = {}

    def group(self, needs: Sequence[Need]) -> Group:
        """The group of those with these needs."""
        key = tuple(sorted(need.limit for need in needs))
        return self._groups.setdefault(key, Group(key))

    def close(self, group: Group) -> None:
        """Nobody waits in it any more."""
        del self._groups[group.key]

    def needs(self, limit: str) -> bool:
        """Whether anybody waits for more of `limit`."""
        return any(limit in key for key in self._groups)
