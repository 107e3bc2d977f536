"""A decision: what was chosen, what has to be held, and why everything else was not."""

from dataclasses import dataclass, field

from enginehouse.contract import Reason
from enginehouse.router.bounds import Bounds
from enginehouse.router.jurisdiction import Residency
from enginehouse.router.replica import Replica
from enginehouse.v1.common_pb2 import Lane


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one candidate.

    Attributes:
        dropped_by: name of the rule. Empty: it was kept.
        scores: one per scorer, in the order of SCORERS; empty when dropped.
        score: their weighted sum.
    """

    replica: Replica
    bounds: Bounds
    lane: Lane.ValueType
    dropped_by: str = ""
    reason: str = ""
    scores: tuple[float, ...] = ()
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Need:
    """What a limit would have had to hold for a request that it refused, and what it had."""

    limit: str
    amount: int
    headroom: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Why there is no replica, in words that the caller may read.

    Attributes:
        rule: the rule that decided it.
        needs: for a refusal by limits: what the cheapest candidate needs of each of its limits. A router that can lease
            this much may ask again.
    """

    reason: Reason
    rule: str
    message: str
    retry_after_s: float | None = None
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome for one request on one view, at one moment.

    Attributes:
        attempts: best first; Envoy tries them in this order. Empty when refused.
        holds: by limit, the amount that covers the dearest of the attempts.
        bounds: the largest of the attempts'.
        residency: the rules that every attempt was checked against.
        excluded: which rules kept other replicas out, in a few words.
        is_clamped: the output is bounded lower than asked, so that the request fits into what is left.
    """

    lane: Lane.ValueType
    attempts: tuple[Replica, ...]
    holds: dict[str, int]
    bounds: Bounds
    residency: tuple[Residency, ...]
    excluded: str = ""
    is_clamped: bool = False
    refused: Refused | None = field(default=None)
