"""The decision: rules, then measures, then one order. A pure function; explaining and executing call the same one."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter

from enginehouse.router.bounds import Bounds, bounds
from enginehouse.router.decision import Decision, Refused, Verdict
from enginehouse.router.filters import Kind
from enginehouse.router.moment import Moment
from enginehouse.router.pick import sticky_hash
from enginehouse.router.policy import Policy, narrow
from enginehouse.router.refuse import by_rule, forbidden_here, nowhere_placed, refuse, unknown_model
from enginehouse.router.request import Request
from enginehouse.router.sift import Dropped, Sifted, lane_of
from enginehouse.router.view import View
from enginehouse.router.weigh import Candidate, Scales, scores, weigh
from enginehouse.v1.common_pb2 import Lane

ATTEMPTS_MAX = 4
_NOTHING = Bounds(0, 0, 0)
_rank = itemgetter(0, 1, 2)


def decide(request: Request, view: View, policy: Policy, moment: Moment) -> Decision:
    """Decides where `request` may go, in which order, and what has to be held for it.

    Args:
        request: what is asked.
        view: the fleet and its limits.
        policy: what holds for the request, before its hints narrow it.
        moment: what can still be held, and what the replicas are doing.

    Returns:
        Attempts and holds; or a refusal with the rule that decided it.
    """
    return _considered(request, view, policy, moment).decision


def verdicts(request: Request, view: View, policy: Policy, moment: Moment) -> tuple[Verdict, ...]:
    """What became of every candidate, best first and the dropped ones last: the same decision, told in full."""
    considered = _considered(request, view, policy, moment)
    if considered.sifted is None or considered.scales is None:
        return ()
    sticky = sticky_hash(request)
    scales = considered.scales
    cheapest = min((one.bounds.cost_nanousd for one in scales.weighed), default=0)
    kept = [
        _kept(request, candidate, cheapest, moment, sticky)
        for candidate in sorted(scales.candidates, key=_rank, reverse=True)
    ]
    dropped = [
        Verdict(
            one.replica,
            bounds(request, one.replica),
            lane_of(request.dialect, considered.policy, one.replica),
            one.rule,
            one.reason,
        )
        for one in _dropped(considered.sifted, scales)
    ]
    return (*kept, *dropped)


@dataclass(frozen=True, slots=True)
class _Considered:
    decision: Decision
    policy: Policy
    sifted: Sifted | None = None
    scales: Scales | None = None


def _considered(request: Request, view: View, policy: Policy, moment: Moment) -> _Considered:
    policy = narrow(policy, request.hints)
    forbidden = forbidden_here(view.here, policy.residency)
    if forbidden:
        return _Considered(_refused(forbidden, policy), policy)
    kind = Kind(
        request.model, request.principal.tenant_name, request.operation, request.dialect, request.features, policy
    )
    sifted = view.sift(kind)
    if not sifted.groups and not sifted.dropped:
        missing = nowhere_placed(request) if request.model in view.models else unknown_model(request)
        return _Considered(_refused(missing, policy), policy)
    scales = weigh(request, policy, sifted, view, moment, sticky_hash(request))
    if not scales.candidates:
        refused = refuse(request, _dropped(sifted, scales), scales.misfits, moment)
        return _Considered(_refused(refused, policy), policy, sifted, scales)
    return _Considered(_chosen(policy, sifted, scales), policy, sifted, scales)


def _chosen(policy: Policy, sifted: Sifted, scales: Scales) -> Decision:
    """The best, and those that can take its place inside Envoy.

    They share its lane, its limits (so that one hold covers each), the bound on the output, and the rewriting of the
    body, which happens once.
    """
    best = max(scales.candidates, key=_rank)[4]
    substitutes = {
        id(one)
        for one in scales.weighed
        if one.group.lane == best.group.lane
        and one.limits == best.limits
        and one.group.rewriting == best.group.rewriting
        and one.bounds.output_tokens == best.bounds.output_tokens
    }
    attempts = nlargest(ATTEMPTS_MAX, (one for one in scales.candidates if id(one[4]) in substitutes), key=_rank)
    chosen = [candidate[4] for candidate in attempts]
    return Decision(
        lane=best.group.lane,
        attempts=tuple(candidate[3] for candidate in attempts),
        holds={limit.id: max(one.bounds.amount(limit.unit) for one in chosen) for limit in best.limits},
        bounds=_largest([one.bounds for one in chosen]),
        residency=policy.residency,
        excluded=by_rule(_dropped(sifted, scales)),
        is_clamped=best.is_clamped,
    )


def _kept(request: Request, candidate: Candidate, cheapest_nanousd: int, moment: Moment, sticky: int) -> Verdict:
    _, score, _, replica, weighed = candidate
    quality, chip, _ = weighed.group.preferences[weighed.group.members.index(replica)]
    cost, wait, affinity = scores(request, replica, weighed, cheapest_nanousd, moment, sticky)
    return Verdict(
        replica, weighed.bounds, weighed.group.lane, scores=(cost, quality, wait, affinity, chip), score=score
    )


def _dropped(sifted: Sifted, scales: Scales) -> list[Dropped]:
    misfits = [
        Dropped(replica, misfit.rule, misfit.reason) for misfit in scales.misfits for replica in misfit.group.members
    ]
    return [*sifted.dropped, *misfits, *scales.full]


def _largest(every: Sequence[Bounds]) -> Bounds:
    return Bounds(
        max(one.input_tokens for one in every),
        max(one.output_tokens for one in every),
        max(one.cost_nanousd for one in every),
    )


def _refused(refused: Refused, policy: Policy) -> Decision:
    return Decision(Lane.LANE_UNSPECIFIED, (), {}, _NOTHING, policy.residency, refused=refused)
