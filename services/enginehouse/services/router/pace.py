"""How fast a router uses each limit: what it leases ahead, and what it gives back, go by that."""

from collections.abc import Iterable
from dataclasses import dataclass

from enginehouse.router.limits import BookShare

_AHEAD_DIVISOR = 4
"""Of the term: how often later windows are leased anew when the present one is longer."""


@dataclass(slots=True)
class _Use:
    window_start_ms: int
    used_ms: int
    in_window: int = 0
    in_window_before: int = 0
    ahead_at_ms: int = 0


class Pace:
    """What was held of each limit in its present window and the one before. Times are boot-time milliseconds."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}

    def used(self, limit: str, window_start_ms: int, amount: int, now_ms: int) -> None:
        """A request holds `amount` of the limit."""
        use = self._uses.get(limit)
        if use is None:
            use = self._uses[limit] = _Use(window_start_ms, now_ms)
        if use.window_start_ms != window_start_ms:
            use.window_start_ms = window_start_ms
            use.in_window, use.in_window_before = 0, use.in_window
        use.in_window += amount
        use.used_ms = now_ms

    def forget(self, since_ms: int) -> None:
        """Forgets the limits that were not used since."""
        for limit, use in list(self._uses.items()):
            if use.used_ms < since_ms:
                del self._uses[limit]

    def limits(self) -> Iterable[str]:
        """Those in use."""
        return tuple(self._uses)

    def is_used(self, limit: str) -> bool:
        """Whether the limit is in use."""
        return limit in self._uses

    def due_ahead(self, share: BookShare, now_ms: int, term_ms: int) -> int:
        """What to lease of each window that begins within the term: as much as was used in one. 0: nothing now."""
        use = self._uses.get(share.limit)
        if use is None or share.window_until_ms is None or share.window_until_ms - now_ms >= term_ms:
            return 0
        return max(use.in_window, use.in_window_before) if now_ms >= use.ahead_at_ms else 0

    def leased_ahead(self, share: BookShare, now_ms: int, term_ms: int) -> None:
        """It has been; not again in this window, or in this part of a long one."""
        use = self._uses.get(share.limit)
        if use is not None and share.window_until_ms is not None:
            use.ahead_at_ms = min(share.window_until_ms, now_ms + term_ms // _AHEAD_DIVISOR)
