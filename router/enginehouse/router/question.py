"""Everything that the filters and scorers look at, put together once per decision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from enginehouse.router.bounds import Bounds
from enginehouse.router.limits import Limit
from enginehouse.router.policy import Policy
from enginehouse.router.replica import Replica
from enginehouse.router.request import Request

Headroom = Callable[[str], int]
"""What can still be held of a limit, in its unit. A router's book is one; a recorded decision is another."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request, the policy that its hints narrowed, and the moment's numbers.

    Attributes:
        in_flight: requests that this router has on each replica, by replica id.
        headroom: by limit.
    """

    request: Request
    policy: Policy
    in_flight: Mapping[str, int]
    headroom: Headroom


@dataclass(frozen=True, slots=True)
class Option:
    """One candidate for one request: what it would use there at most, and which limits it would be charged to."""

    replica: Replica
    bounds: Bounds
    limits: tuple[Limit, ...]
