"""Which replica a session, or a prompt's beginning, has been on before."""

from enginehouse.router.moment import Moment
from enginehouse.router.pick import sticky_fraction
from enginehouse.router.replica import Replica
from enginehouse.router.request import Request


def affinity_score(request: Request, sticky: int, replica: Replica, moment: Moment) -> float:
    """0 to 1. A session goes first: its own order of all replicas. Then prompts: the share of blocks already seen.

    Always below the hard constraints: a replica that a rule dropped is not here to be scored.
    """
    if request.hints.session:
        return sticky_fraction(sticky, replica.sticky)
    if request.prefix_blocks:
        return min(1.0, moment.prefix_matches.get(replica.id, 0) / request.prefix_blocks)
    return 0.0
