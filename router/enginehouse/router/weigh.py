"""One request against what sifting left: bounds and limits per group, slots and scores per replica."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enginehouse.router.bounds import Bounds, bounds, output_tokens_bound
from enginehouse.router.clamp import clamped_output
from enginehouse.router.filters import BUDGET_FILTER, RATE_FILTER, SIZE_FILTERS, SLOTS, Offer
from enginehouse.router.limits import Limit
from enginehouse.router.moment import Moment
from enginehouse.router.pick import mixed, route_order
from enginehouse.router.policy import Policy, TightBudget, Weights
from enginehouse.router.replica import IDLE, Replica
from enginehouse.router.request import Request
from enginehouse.router.scorers import affinity_score, cost_score, predicted_wait_s, wait_score
from enginehouse.router.sift import Dropped, Group, Sifted
from enginehouse.router.view import View

_LIMIT_RULES = (RATE_FILTER.name, BUDGET_FILTER.name)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A group that a request fits into.

    Attributes:
        is_clamped: it fits because its output is bounded lower than asked.
    """

    group: Group
    bounds: Bounds
    limits: tuple[Limit, ...]
    is_clamped: bool


@dataclass(frozen=True, slots=True)
class Misfit:
    """A group that a request does not fit into."""

    offer: Offer
    group: Group
    rule: str
    reason: str


# The order of candidates: by route, by score, by hash; then what it is about. Larger is better.
Candidate = tuple[int, float, int, Replica, Weighed]


@dataclass(frozen=True, slots=True)
class Scales:
    """All of it."""

    weighed: tuple[Weighed, ...]
    misfits: tuple[Misfit, ...]
    candidates: list[Candidate]
    full: list[Dropped]


def weigh(request: Request, policy: Policy, sifted: Sifted, view: View, moment: Moment, sticky: int) -> Scales:
    """Fits the request into each group, and ranks the replicas of those that it fits into."""
    weighed: list[Weighed] = []
    misfits: list[Misfit] = []
    for group in sifted.groups:
        offer = Offer(
            request,
            policy,
            group.sample,
            bounds(request, group.sample),
            view.limits_over(request.principal, group.sample.deployment),
        )
        fitted = _fit(offer, group, moment)
        (weighed if isinstance(fitted, Weighed) else misfits).append(fitted)  # type: ignore[arg-type]
    full: list[Dropped] = []
    candidates = list(_ranked(request, policy, sifted.weights, weighed, moment, sticky, full))
    return Scales(tuple(weighed), tuple(misfits), candidates, full)


def scores(
    request: Request, replica: Replica, weighed: Weighed, cheapest_nanousd: int, moment: Moment, sticky: int
) -> tuple[float, float, float]:
    """The replica's scores for cost, wait and affinity."""
    load = moment.loads.get(replica.id, IDLE)
    wait_s = predicted_wait_s(replica, load, moment.in_flight.get(replica.id, 0), weighed.bounds)
    return (
        cost_score(weighed.bounds.cost_nanousd, cheapest_nanousd),
        wait_score(wait_s),
        affinity_score(request, sticky, replica, moment),
    )


def _fit(offer: Offer, group: Group, moment: Moment) -> Weighed | Misfit:
    misfit = _misfit(offer, group, moment)
    if misfit is None:
        return Weighed(group, offer.bounds, offer.limits, is_clamped=False)
    if misfit.rule in _LIMIT_RULES and offer.policy.on_tight_budget is TightBudget.CLAMP:
        output = clamped_output(offer, moment)
        if output is not None and output < output_tokens_bound(offer.request, offer.sample):
            smaller = bounds(offer.request, offer.sample, output)
            clamped = Offer(offer.request, offer.policy, offer.sample, smaller, offer.limits)
            if _misfit(clamped, group, moment) is None:
                return Weighed(group, smaller, offer.limits, is_clamped=True)
    return misfit


def _misfit(offer: Offer, group: Group, moment: Moment) -> Misfit | None:
    for rule in SIZE_FILTERS:
        reason = rule.drop(offer, moment)
        if reason is not None:
            return Misfit(offer, group, rule.name, reason)
    return None


def _ranked(
    request: Request,
    policy: Policy,
    weights: Weights,
    weighed: Sequence[Weighed],
    moment: Moment,
    sticky: int,
    full: list[Dropped],
) -> Iterator[Candidate]:
    routes = route_order(sticky, policy.routes) if policy.routes else {}
    cheapest = min((one.bounds.cost_nanousd for one in weighed), default=0)
    in_flight = moment.in_flight
    for one in weighed:
        route = -routes.get(one.group.sample.deployment, 0)
        for replica, preference in zip(one.group.members, one.group.preferences, strict=True):
            if in_flight.get(replica.id, 0) >= replica.in_flight_max:
                reason = f"has {replica.in_flight_max} requests in flight, which is its maximum"
                full.append(Dropped(replica, SLOTS, reason))
                continue
            cost, wait, affinity = scores(request, replica, one, cheapest, moment, sticky)
            score = preference[2] + weights.cost * cost + weights.wait * wait + weights.affinity * affinity
            yield route, score, mixed(sticky, replica.sticky), replica, one
