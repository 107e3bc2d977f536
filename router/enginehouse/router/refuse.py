"""Says why a request was refused, in words that its caller may read."""

from collections.abc import Sequence

from enginehouse.contract import Reason
from enginehouse.router.decision import Need, Refused, Verdict
from enginehouse.router.filters import FILTERS, Filter
from enginehouse.router.jurisdiction import Place, Residency
from enginehouse.router.question import Option, Question
from enginehouse.router.request import Request

RETRY_AFTER_S = 3.0
_REASONS_SHOWN = 3
_LIMIT_REASONS = (Reason.BUDGET_EXHAUSTED, Reason.RATE_LIMITED)
_ORDER = {rule.name: index for index, rule in enumerate(FILTERS)}


def unknown_model(request: Request) -> Refused:
    """There is no such model, or none that this tenant is told of. Both read the same, so that nothing leaks."""
    return Refused(
        Reason.MODEL_NOT_FOUND,
        "model",
        f"model {request.model!r} does not exist, or this key may not use it; GET /v1/models lists those it may use",
    )


def nowhere_placed(request: Request) -> Refused:
    """The model is declared and no replica of it has ever been seen."""
    return Refused(
        Reason.NO_REPLICA_AVAILABLE,
        "availability",
        f"model {request.model!r} has no replica yet",
        retry_after_s=RETRY_AFTER_S,
    )


def forbidden_here(places: Sequence[Place | None], rules: Sequence[Residency]) -> Refused | None:
    """A refusal when the request itself may not pass through the places where Envoy and the router are."""
    for place in places:
        for rule in rules or (Residency(),):
            if not rule.permits(place):
                where = f"in {place.label}" if place else "at no declared place"
                return Refused(
                    Reason.RESIDENCY_UNSATISFIABLE,
                    "residency",
                    f"this door is {where}, where this data may not be; the rule is: {rule}. Use another door",
                )
    return None


def refuse(options: Sequence[Option], verdicts: Sequence[Verdict], question: Question) -> Refused:
    """The refusal when every candidate was dropped: by the rule that came last, because it decided."""
    rule = max((FILTERS[_ORDER[verdict.dropped_by]] for verdict in verdicts), key=lambda rule: _ORDER[rule.name])
    if rule.refusal == Reason.MODEL_NOT_FOUND:
        return unknown_model(question.request)
    decisive = [verdict for verdict in verdicts if verdict.dropped_by == rule.name]
    others = [verdict for verdict in verdicts if verdict.dropped_by != rule.name]
    message = f"model {question.request.model!r}: no replica is left by rule {rule.name}: {reasons(decisive)}"
    if others:
        message += f". Others were kept out by rule {by_rule(others)}"
    return Refused(
        rule.refusal,
        rule.name,
        message,
        retry_after_s=RETRY_AFTER_S if rule.refusal == Reason.NO_REPLICA_AVAILABLE else None,
        needs=_needs(options, decisive, question) if rule.refusal in _LIMIT_REASONS else (),
    )


def reasons(verdicts: Sequence[Verdict]) -> str:
    """Why each was dropped; the same words once, and no more than three of them."""
    shown = list(dict.fromkeys(f"{verdict.replica.id} {verdict.reason}" for verdict in verdicts))
    more = f" and {len(shown) - _REASONS_SHOWN} more" if len(shown) > _REASONS_SHOWN else ""
    return "; ".join(shown[:_REASONS_SHOWN]) + more


def by_rule(verdicts: Sequence[Verdict]) -> str:
    """The rules that dropped something, with why, in the order of the rules. Empty when nothing was dropped."""
    groups: dict[Filter, list[Verdict]] = {
        rule: [verdict for verdict in verdicts if verdict.dropped_by == rule.name] for rule in FILTERS
    }
    return ", ".join(f"{rule.name} ({reasons(group)})" for rule, group in groups.items() if group)


def _needs(options: Sequence[Option], decisive: Sequence[Verdict], question: Question) -> tuple[Need, ...]:
    dropped = {verdict.replica.id for verdict in decisive}
    cheapest = min(
        (option for option in options if option.replica.id in dropped),
        key=lambda option: (option.bounds.cost_nanousd, option.replica.id),
    )
    return tuple(
        Need(limit.id, cheapest.bounds.amount(limit.unit), question.headroom(limit.id)) for limit in cheapest.limits
    )
