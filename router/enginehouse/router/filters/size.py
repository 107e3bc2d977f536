"""What a rule is that looks at how large a request may become."""

from dataclasses import dataclass
from typing import Protocol

from enginehouse.contract import Reason
from enginehouse.router.bounds import Bounds
from enginehouse.router.limits import Limit
from enginehouse.router.moment import Moment
from enginehouse.router.policy import Policy
from enginehouse.router.replica import Replica
from enginehouse.router.request import Request


@dataclass(frozen=True, slots=True)
class Offer:
    """What a request would use at most, on any replica of a group of equals.

    Attributes:
        sample: one of the group.
        limits: those that the request would be charged to.
        price_nanousd_max: the highest price that policy and caller allow. None: any.
    """

    request: Request
    policy: Policy
    sample: Replica
    bounds: Bounds
    limits: tuple[Limit, ...]
    price_nanousd_max: int | None = None


class SizeFilter(Protocol):
    """Drops groups of equal replicas for which a request is too large. Pure, asked per request and group."""

    @property
    def name(self) -> str:
        """The rule's name, as explanations and refusals give it."""
        ...

    @property
    def refusal(self) -> Reason:
        """What the caller is told when this rule dropped the last candidate."""
        ...

    def drop(self, offer: Offer, moment: Moment) -> str | None:
        """Why the group is dropped, in words that the caller may read; None keeps it."""
        ...
