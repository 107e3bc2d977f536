"""What a rule is that only looks at the replica and at the request's kind."""

from dataclasses import dataclass
from typing import Protocol

from enginehouse.contract import Reason
from enginehouse.router.policy import Policy
from enginehouse.router.replica import Replica
from enginehouse.v1.common_pb2 import Dialect, Feature, Operation


@dataclass(frozen=True, slots=True)
class Kind:
    """What requests share that the same replicas may serve: everything about a request but its size and its moment.

    Attributes:
        tenant: resource name.
        policy: narrowed by the request's hints.
    """

    model: str
    tenant: str
    operation: Operation.ValueType
    dialect: Dialect.ValueType
    features: frozenset[Feature.ValueType]
    policy: Policy


class Filter(Protocol):
    """Drops replicas that break one rule. Pure, and asked once per view and kind of request, not per request."""

    @property
    def name(self) -> str:
        """The rule's name, as explanations and refusals give it."""
        ...

    @property
    def refusal(self) -> Reason:
        """What the caller is told when this rule dropped the last candidate."""
        ...

    def drop(self, replica: Replica, kind: Kind) -> str | None:
        """Why the replica is dropped, in words that the caller may read; None keeps it."""
        ...
