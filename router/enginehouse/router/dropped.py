"""What was dropped, by which rule and why, in words that a caller may read."""

from collections.abc import Iterable
from dataclasses import dataclass

from enginehouse.router.filters import REFUSALS
from enginehouse.router.replica import Replica

_REASONS_SHOWN = 3
_ORDER = {name: index for index, name in enumerate(REFUSALS)}


@dataclass(frozen=True, slots=True)
class Dropped:
    """Replicas that one rule dropped for one reason; at least one."""

    replicas: tuple[Replica, ...]
    rule: str
    reason: str


def last_rule(dropped: Iterable[Dropped]) -> str:
    """The rule that came last, because it decided."""
    return max((one.rule for one in dropped), key=_ORDER.__getitem__)


def reasons(dropped: Iterable[Dropped]) -> str:
    """Why each was dropped; the same words once, and no more than three of them."""
    first: dict[str, str] = {}
    counts: dict[str, int] = {}
    for one in dropped:
        first.setdefault(one.reason, one.replicas[0].id)
        counts[one.reason] = counts.get(one.reason, 0) + len(one.replicas)
    shown = [f"{_several(first[reason], count)} {reason}" for reason, count in list(counts.items())[:_REASONS_SHOWN]]
    more = f" and {len(counts) - _REASONS_SHOWN} reasons more" if len(counts) > _REASONS_SHOWN else ""
    return "; ".join(shown) + more


def by_rule(dropped: Iterable[Dropped]) -> str:
    """The rules that dropped something, with why, in the order of the rules. Empty when nothing was dropped."""
    groups: dict[str, list[Dropped]] = {}
    for one in dropped:
        groups.setdefault(one.rule, []).append(one)
    return ", ".join(f"{rule} ({reasons(groups[rule])})" for rule in sorted(groups, key=_ORDER.__getitem__))


def _several(first: str, count: int) -> str:
    return first if count == 1 else f"{first} and {count - 1} more:"
