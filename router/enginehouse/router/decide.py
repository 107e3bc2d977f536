"""The decision: rules, then measures, then one order. A pure function; explaining and executing call the same one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from enginehouse.router.bounds import Bounds, bounds
from enginehouse.router.decision import Decision, Refused, Verdict
from enginehouse.router.dropped import Dropped, by_rule
from enginehouse.router.moment import Moment
from enginehouse.router.pick import sticky_hash
from enginehouse.router.policy import Policy
from enginehouse.router.refuse import forbidden_here, nowhere_placed, refuse, unknown_model
from enginehouse.router.request import Request
from enginehouse.router.sift import Preferred, Sifted, lane_of
from enginehouse.router.view import View
from enginehouse.router.weigh import Candidate, Scales, Weighed, cheapest_nanousd, leaders, scores, weigh
from enginehouse.v1.common_pb2 import Lane

ATTEMPTS_MAX = 4
_NOTHING = Bounds(0, 0, 0)


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
    return _considered(request, view, policy, moment, ATTEMPTS_MAX).decision


def verdicts(request: Request, view: View, policy: Policy, moment: Moment) -> tuple[Verdict, ...]:
    """What became of every candidate, best first and the dropped ones last: the same decision, told in full."""
    considered = _considered(request, view, policy, moment, sys.maxsize)
    sifted, scales = considered.sifted, considered.scales
    if scales is None:
        return ()
    sticky = sticky_hash(request)
    cheapest = cheapest_nanousd(scales.weighed)
    preferred = {replica.id: part for one in scales.weighed for part in one.group.parts for replica in part.replicas}
    kept = [
        _kept(request, candidate, preferred[candidate[2].id], cheapest, moment, sticky)
        for candidate in leaders(scales.candidates, len(scales.candidates), sticky)
    ]
    dropped = [
        Verdict(
            replica,
            bounds(request, replica),
            lane_of(request.dialect, request.features, sifted.policy, replica),
            one.rule,
            one.reason,
        )
        for one in _dropped(sifted, scales)
        for replica in one.replicas
    ]
    return (*kept, *dropped)


@dataclass(frozen=True, slots=True)
class _Considered:
    decision: Decision
    sifted: Sifted
    scales: Scales | None = None


def _considered(request: Request, view: View, policy: Policy, moment: Moment, count: int) -> _Considered:
    sifted = view.sift(request, policy)
    if sifted.forbidden is not None:
        return _Considered(_refused(forbidden_here(*sifted.forbidden), sifted), sifted)
    if not sifted.groups and not sifted.dropped:
        missing = nowhere_placed(request) if request.model in view.models else unknown_model(request)
        return _Considered(_refused(missing, sifted), sifted)
    sticky = sticky_hash(request)
    scales = weigh(request, policy, sifted, view, moment, sticky, count)
    if not scales.candidates:
        refused = refuse(request, _dropped(sifted, scales), scales.misfits, moment)
        return _Considered(_refused(refused, sifted), sifted, scales)
    return _Considered(_chosen(sifted, scales, sticky), sifted, scales)


def _chosen(sifted: Sifted, scales: Scales, sticky: int) -> Decision:
    """The best, and those that can take its place inside Envoy.

    They share its lane, its limits (so that one hold covers each), the bound on the output, and the rewriting of the
    body, which happens once.
    """
    attempts = leaders(scales.candidates, ATTEMPTS_MAX, sticky)
    best = attempts[0][3]
    substitutes = {id(one) for one in scales.weighed if _can_stand_in(one, best)}
    if len(substitutes) < len(scales.weighed):
        compatible = [candidate for candidate in scales.candidates if id(candidate[3]) in substitutes]
        attempts = leaders(compatible, ATTEMPTS_MAX, sticky)
    chosen = [candidate[3].bounds for candidate in attempts]
    return Decision(
        lane=best.group.lane,
        attempts=tuple([candidate[2] for candidate in attempts]),
        holds={limit.id: max([most.amount(limit.unit) for most in chosen]) for limit in best.limits},
        bounds=_largest(chosen),
        residency=sifted.policy.residency,
        excluded=by_rule(_dropped(sifted, scales)) if scales.misfits or scales.full else sifted.excluded,
        is_clamped=best.is_clamped,
    )


def _can_stand_in(one: Weighed, best: Weighed) -> bool:
    return one is best or (
        one.group.lane == best.group.lane
        and one.group.rewriting == best.group.rewriting
        and one.bounds.output_tokens == best.bounds.output_tokens
        and one.is_clamped == best.is_clamped
        and one.limits == best.limits
    )


def _kept(
    request: Request,
    candidate: Candidate,
    preferred: Preferred,
    cheapest_nanousd: int,
    moment: Moment,
    sticky: int,
) -> Verdict:
    _, score, replica, weighed = candidate
    cost, wait, affinity = scores(request, replica, weighed, cheapest_nanousd, moment, sticky)
    return Verdict(
        replica,
        weighed.bounds,
        weighed.group.lane,
        scores=(cost, preferred.quality, wait, affinity, preferred.chip),
        score=score,
    )


def _dropped(sifted: Sifted, scales: Scales) -> list[Dropped]:
    misfits = [Dropped(misfit.group.members, misfit.rule, misfit.reason) for misfit in scales.misfits]
    return [*sifted.dropped, *misfits, *scales.full]


def _largest(every: Sequence[Bounds]) -> Bounds:
    return Bounds(*map(max, zip(*every, strict=True)))


def _refused(refused: Refused, sifted: Sifted) -> Decision:
    return Decision(Lane.LANE_UNSPECIFIED, (), {}, _NOTHING, sifted.policy.residency, refused=refused)
