"""Says why a request was refused, in words that its caller may read."""

from collections.abc import Sequence

from enginehouse.contract import Reason
from enginehouse.router.decision import Need, Refused
from enginehouse.router.dropped import Dropped, by_rule, last_rule, reasons
from enginehouse.router.filters import REFUSALS
from enginehouse.router.jurisdiction import Place, Residency
from enginehouse.router.moment import Moment
from enginehouse.router.request import Request
from enginehouse.router.weigh import Misfit

RETRY_AFTER_S = 3.0
_LIMIT_REASONS = (Reason.BUDGET_EXHAUSTED, Reason.RATE_LIMITED)


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


def forbidden_here(place: Place | None, rule: Residency) -> Refused:
    """The request itself may not pass through a place where Envoy or the router is."""
    where = f"in {place.label}" if place else "at no declared place"
    return Refused(
        Reason.RESIDENCY_UNSATISFIABLE,
        "residency",
        f"this door is {where}, where this data may not be; the rule is: {rule}. Use another door",
    )


def refuse(request: Request, dropped: Sequence[Dropped], misfits: Sequence[Misfit], moment: Moment) -> Refused:
    """The refusal when every candidate was dropped: by the rule that came last, because it decided."""
    rule = last_rule(dropped)
    reason = REFUSALS[rule]
    if reason == Reason.MODEL_NOT_FOUND:
        return unknown_model(request)
    decisive = [one for one in dropped if one.rule == rule]
    others = [one for one in dropped if one.rule != rule]
    message = f"model {request.model!r}: no replica is left by rule {rule}: {reasons(decisive)}"
    if others:
        message += f". Others were kept out by rule {by_rule(others)}"
    return Refused(
        reason,
        rule,
        message,
        retry_after_s=RETRY_AFTER_S if reason == Reason.NO_REPLICA_AVAILABLE else None,
        needs=_needs([one for one in misfits if one.rule == rule], moment) if reason in _LIMIT_REASONS else (),
    )


def _needs(misfits: Sequence[Misfit], moment: Moment) -> tuple[Need, ...]:
    cheapest = min(misfits, key=lambda one: (one.offer.bounds.cost_nanousd, one.offer.sample.id)).offer
    return tuple(
        Need(limit.id, cheapest.bounds.amount(limit.unit), moment.headroom(limit.id)) for limit in cheapest.limits
    )
