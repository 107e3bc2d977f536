"""Which deployments are worth asking for an exact count of a prompt that is too large by its bytes."""

from dataclasses import replace

from enginehouse.router.clamp import clamped_output
from enginehouse.router.filters import SIZE_FILTERS
from enginehouse.router.moment import Moment
from enginehouse.router.policy import Policy, TightBudget
from enginehouse.router.replica import Replica
from enginehouse.router.request import Request
from enginehouse.router.view import View
from enginehouse.router.weigh import offer_of

_TOKENS_MIN = 1


def worth_counting(request: Request, view: View, policy: Policy, moment: Moment) -> tuple[Replica, ...]:
    """One replica of each deployment for which the request could fit if its prompt had few enough tokens.

    Each of them may see the prompt: it has passed every rule over replicas, residency among them. A deployment that has
    counted already is left out, and so is one for which the output alone is too much and may not be cut short.
    """
    sifted = view.sift(request, policy)
    if sifted.forbidden is not None:
        return ()
    counted = {deployment for deployment, _ in request.prompt_tokens}
    is_clamping = policy.on_tight_budget is TightBudget.CLAMP
    found: dict[str, Replica] = {}
    for group in sifted.groups:
        deployment = group.sample.deployment
        if deployment in counted or deployment in found:
            continue
        smallest = replace(request, prompt_tokens=((deployment, _TOKENS_MIN),))
        offer = offer_of(smallest, policy, sifted, group, view)
        fits = all(rule.drop(offer, moment) is None for rule in SIZE_FILTERS)
        if fits or (is_clamping and clamped_output(offer, moment) is not None):
            found[deployment] = min(
                group.members, key=lambda replica: (moment.in_flight.get(replica.id, 0), replica.id)
            )
    return tuple(found.values())
