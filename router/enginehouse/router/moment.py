"""The numbers of one moment, beside the view: what may be held, and what the replicas are doing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from enginehouse.router.replica import Load

Headroom = Callable[[str], int]
"""What can still be held of a limit, in its unit. A router's book is one; a recorded decision is another."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What changes from request to request.

    Attributes:
        headroom: by limit.
        in_flight: requests that this router has on each replica, by replica id.
        loads: what the nodes last reported, by replica id.
        prefix_matches: how many of the request's first blocks a replica has seen lately, by replica id.
    """

    headroom: Headroom
    in_flight: Mapping[str, int] = field(default_factory=dict)
    loads: Mapping[str, Load] = field(default_factory=dict)
    prefix_matches: Mapping[str, int] = field(default_factory=dict)
