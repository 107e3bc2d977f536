"""One request against what sifting left: bounds and limits per group, slots and scores per replica."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappush, heapreplace, nlargest
from operator import itemgetter
from typing import NamedTuple

from enginehouse.router.bounds import Bounds, bounds, output_tokens_bound
from enginehouse.router.clamp import clamped_output
from enginehouse.router.dropped import Dropped
from enginehouse.router.filters import BUDGET_FILTER, RATE_FILTER, SIZE_FILTERS, SLOTS, Offer
from enginehouse.router.limits import Limit
from enginehouse.router.moment import Moment
from enginehouse.router.pick import mixed, route_order
from enginehouse.router.policy import Policy, TightBudget, lower
from enginehouse.router.replica import IDLE, Replica
from enginehouse.router.request import Request
from enginehouse.router.scorers import affinity_score, cost_score, predicted_wait_s, wait_score
from enginehouse.router.sift import Group, Sifted
from enginehouse.router.view import View

_CLAMPED = 1 << 32
_LIMIT_RULES = (RATE_FILTER.name, BUDGET_FILTER.name)
_rank = itemgetter(0, 1)


class Weighed(NamedTuple):
    """A group that a request fits into. `is_clamped`: because its output is bounded lower than asked."""

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


# By route, then by score, larger is better; and what it is about. Those with the whole output come before those with
# less of it. Ties are broken by `leaders`. A plain tuple, because there is one for every replica of every request.
Candidate = tuple[int, float, Replica, Weighed]


@dataclass(frozen=True, slots=True)
class Scales:
    """All of it."""

    weighed: tuple[Weighed, ...]
    misfits: tuple[Misfit, ...]
    candidates: list[Candidate]
    full: list[Dropped]


def weigh(
    request: Request, policy: Policy, sifted: Sifted, view: View, moment: Moment, sticky: int, count: int = sys.maxsize
) -> Scales:
    """Fits the request into each group, and ranks the replicas of those that it fits into.

    Args:
        request: what is asked.
        policy: what holds for it, before its hints narrow it.
        sifted: what is left for its kind.
        view, moment: see `decide`.
        sticky: breaks ties.
        count: how many of the best of each group are wanted; of the others, some may be left out.
    """
    weighed: list[Weighed] = []
    misfits: list[Misfit] = []
    has_highest_price = policy.price_nanousd_max is not None or request.hints.price_nanousd_max is not None
    for group in sifted.groups:
        most = bounds(request, group.sample)
        limits = view.limits_over(request.principal, group.sample.deployment)
        if not has_highest_price and _surely_fits(request, group.sample, most, limits, moment):
            weighed.append(Weighed(group, most, limits, is_clamped=False))
            continue
        fitted = _fit(offer_of(request, policy, sifted, group, view), group, moment)
        if isinstance(fitted, Weighed):
            weighed.append(fitted)
        else:
            misfits.append(fitted)
    full: list[Dropped] = []
    candidates = list(_ranked(request, sifted, weighed, moment, sticky, count, full))
    return Scales(tuple(weighed), tuple(misfits), candidates, full)


def offer_of(request: Request, policy: Policy, sifted: Sifted, group: Group, view: View) -> Offer:
    """What the request would use at most on any replica of a group."""
    return Offer(
        request,
        sifted.policy,
        group.sample,
        bounds(request, group.sample),
        view.limits_over(request.principal, group.sample.deployment),
        lower(policy.price_nanousd_max, request.hints.price_nanousd_max),
    )


def cheapest_nanousd(weighed: Sequence[Weighed]) -> int:
    """The lowest cost that the others are measured by: of the whole output, if anything can give that."""
    whole = [one.bounds.cost_nanousd for one in weighed if not one.is_clamped]
    return min(whole or [one.bounds.cost_nanousd for one in weighed], default=0)


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


def leaders(candidates: Sequence[Candidate], count: int, sticky: int) -> list[Candidate]:
    """The best, best first. Ties are broken by a hash of the request and the replica, so they can be broken again."""
    if len(candidates) > count:
        # Hashing is what costs; most candidates are out of the race by their score already.
        last = nlargest(count, map(_rank, candidates))[-1]
        candidates = [one for one in candidates if one[1] >= last[1] or one[0] > last[0]]
    return nlargest(count, candidates, key=lambda one: (one[0], one[1], mixed(sticky, one[2].sticky)))


def _surely_fits(request: Request, sample: Replica, most: Bounds, limits: Iterable[Limit], moment: Moment) -> bool:
    """Whether no rule over sizes can object, where no highest price is set. The usual case, told in little time."""
    asked = request.output_tokens_max
    if asked is not None and asked >= sample.capabilities.context_tokens_max:
        return False
    headroom = moment.headroom
    return all([most.amount(limit.unit) <= headroom(limit.id) for limit in limits])  # noqa: C419 (half the time)


def _fit(offer: Offer, group: Group, moment: Moment) -> Weighed | Misfit:
    misfit = _misfit(offer, group, moment)
    if misfit is None:
        return Weighed(group, offer.bounds, offer.limits, is_clamped=False)
    if misfit.rule in _LIMIT_RULES and offer.policy.on_tight_budget is TightBudget.CLAMP:
        output = clamped_output(offer, moment)
        if output is not None and output < output_tokens_bound(offer.request, offer.sample):
            clamped = replace(offer, bounds=bounds(offer.request, offer.sample, output))
            if _misfit(clamped, group, moment) is None:
                return Weighed(group, clamped.bounds, offer.limits, is_clamped=True)
    return misfit


def _misfit(offer: Offer, group: Group, moment: Moment) -> Misfit | None:
    for rule in SIZE_FILTERS:
        reason = rule.drop(offer, moment)
        if reason is not None:
            return Misfit(offer, group, rule.name, reason)
    return None


def _ranked(
    request: Request,
    sifted: Sifted,
    weighed: Sequence[Weighed],
    moment: Moment,
    sticky: int,
    count: int,
    full: list[Dropped],
) -> Iterator[Candidate]:
    routes = route_order(sticky, sifted.policy.routes) if sifted.policy.routes else {}
    weights, cheapest = sifted.weights, cheapest_nanousd(weighed)
    in_flight, loads = moment.in_flight.get, moment.loads.get
    has_affinity = bool(request.hints.session) or bool(request.prefix_blocks and moment.prefix_matches)
    for one in weighed:
        most = one.bounds
        route = -routes.get(one.group.sample.deployment, 0) - (_CLAMPED if one.is_clamped else 0)
        cost = weights.cost * cost_score(most.cost_nanousd, cheapest)
        best: list[float] = []
        for part in one.group.parts:
            base = part.weighted + cost
            for replica in part.replicas:
                running = in_flight(replica.id, 0)
                if running >= replica.in_flight_max:
                    reason = f"has {replica.in_flight_max} requests in flight, which is its maximum"
                    full.append(Dropped((replica,), SLOTS, reason))
                    continue
                wait_s = predicted_wait_s(replica, loads(replica.id, IDLE), running, most)
                score = base + weights.wait * wait_score(wait_s)
                if has_affinity:
                    score += weights.affinity * affinity_score(request, sticky, replica, moment)
                if len(best) < count:
                    heappush(best, score)
                elif score > best[0]:
                    heapreplace(best, score)
                elif score < best[0]:
                    continue
                yield route, score, replica, one
