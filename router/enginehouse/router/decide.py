"""The decision: rules, then measures, then one order. A pure function; explaining and executing call the same one."""

from collections.abc import Mapping, Sequence
from itertools import starmap

from enginehouse.router.bounds import Bounds, bounds
from enginehouse.router.decision import Decision, Refused, Verdict
from enginehouse.router.filters import FILTERS
from enginehouse.router.pick import order_key
from enginehouse.router.policy import Policy, narrow
from enginehouse.router.question import Headroom, Option, Question
from enginehouse.router.refuse import by_rule, forbidden_here, nowhere_placed, refuse, unknown_model
from enginehouse.router.replica import Replica
from enginehouse.router.request import Request
from enginehouse.router.scorers import SCORERS
from enginehouse.router.view import View
from enginehouse.v1.common_pb2 import Lane

ATTEMPTS_MAX = 4
_NOTHING = Bounds(0, 0, 0)


def decide(request: Request, view: View, policy: Policy, headroom: Headroom, in_flight: Mapping[str, int]) -> Decision:
    """Decides where `request` may go, in which order, and what has to be held for it.

    Args:
        request: what is asked.
        view: the fleet and its limits, at one moment.
        policy: the tenant's, before the request's hints narrow it.
        headroom: what can still be held of a limit.
        in_flight: requests on each replica, by replica id.

    Returns:
        Attempts, holds and a verdict for every candidate; or a refusal with the rule that decided it.
    """
    question = Question(request, narrow(policy, request.hints), in_flight, headroom)
    forbidden = forbidden_here(view.here, question.policy.residency)
    if forbidden:
        return _refused(forbidden, question)
    options = [_option(request, view, replica) for replica in view.candidates(request.model)]
    if not options:
        return _refused(nowhere_placed(request) if request.model in view.models else unknown_model(request), question)
    dropped, kept = _filtered(options, question)
    if not kept:
        return _refused(refuse(options, dropped, question), question, dropped)
    ranked = _ranked(kept, question)
    chosen = _compatible(ranked)
    return Decision(
        lane=ranked[0][1].lane,
        attempts=tuple(option.replica for option in chosen),
        holds={limit.id: max(option.bounds.amount(limit.unit) for option in chosen) for limit in chosen[0].limits},
        bounds=_largest(chosen),
        verdicts=tuple(verdict for _, verdict in ranked) + tuple(dropped),
        residency=question.policy.residency,
        excluded=by_rule(dropped),
    )


def lane_of(request: Request, policy: Policy, replica: Replica) -> Lane.ValueType:
    """The lane that `request` takes to `replica`: the direct one if the engine speaks the client's dialect.

    Policy may force the adapter lane, and so may the deployment. Nobody can force bytes on an engine that does not
    speak them.
    """
    forced = policy.lane or replica.forced_lane
    if forced != Lane.LANE_ADAPTER and request.dialect in replica.capabilities.direct_dialects:
        return Lane.LANE_DIRECT
    return Lane.LANE_ADAPTER


def _option(request: Request, view: View, replica: Replica) -> Option:
    limits = view.limits_over(request.principal, replica.model, replica.deployment)
    return Option(replica, bounds(request, replica), limits)


def _filtered(options: Sequence[Option], question: Question) -> tuple[list[Verdict], list[Option]]:
    dropped: list[Verdict] = []
    kept: list[Option] = []
    for option in options:
        for rule in FILTERS:
            reason = rule.drop(option, question)
            if reason is not None:
                lane = lane_of(question.request, question.policy, option.replica)
                dropped.append(Verdict(option.replica, option.bounds, lane, rule.name, reason))
                break
        else:
            kept.append(option)
    return dropped, kept


def _ranked(options: Sequence[Option], question: Question) -> list[tuple[Option, Verdict]]:
    weights = [scorer.weight(question.policy.weights) for scorer in SCORERS]
    columns = [scorer.score(options, question) for scorer in SCORERS]

    def judged(option: Option, *scores: float) -> tuple[Option, Verdict]:
        score = sum(weight * value for weight, value in zip(weights, scores, strict=True))
        lane = lane_of(question.request, question.policy, option.replica)
        return option, Verdict(option.replica, option.bounds, lane, scores=scores, score=score)

    pairs = list(starmap(judged, zip(options, *columns, strict=True)))
    return sorted(pairs, key=lambda pair: order_key(question.request, pair[0].replica, pair[1].score))


def _compatible(ranked: Sequence[tuple[Option, Verdict]]) -> list[Option]:
    """The best, and those that can take its place inside Envoy.

    They share its lane, its limits (so that one hold covers each) and the rewriting of the body, which happens once.
    """
    best, verdict = ranked[0]
    return [
        option
        for option, other in ranked
        if other.lane == verdict.lane and option.limits == best.limits and _rewriting(option) == _rewriting(best)
    ][:ATTEMPTS_MAX]


def _rewriting(option: Option) -> tuple[str, str, int]:
    replica = option.replica
    return (
        replica.served_model,
        replica.capabilities.stream_usage_members,
        option.bounds.output_tokens,
    )


def _largest(options: Sequence[Option]) -> Bounds:
    return Bounds(
        max(option.bounds.input_tokens for option in options),
        max(option.bounds.output_tokens for option in options),
        max(option.bounds.cost_nanousd for option in options),
    )


def _refused(refused: Refused, question: Question, verdicts: Sequence[Verdict] = ()) -> Decision:
    return Decision(
        lane=Lane.LANE_UNSPECIFIED,
        attempts=(),
        holds={},
        bounds=_NOTHING,
        verdicts=tuple(verdicts),
        residency=question.policy.residency,
        refused=refused,
    )
