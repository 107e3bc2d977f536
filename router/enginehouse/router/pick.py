"""Choices that can be computed again: ties, sessions, and weighted routes."""

import math
from collections.abc import Iterable

from enginehouse.router.policy import Route
from enginehouse.router.replica import hash64
from enginehouse.router.request import Request

_MASK = (1 << 64) - 1
_FULL = float(1 << 64)


def sticky_hash(request: Request) -> int:
    """What ties are broken by: the session if there is one, so that it stays; otherwise the request."""
    return hash64(f"{request.principal.tenant_name}/{request.hints.session or request.id}")


def mixed(one: int, other: int) -> int:
    """A hash of 64 bits of two hashes (the finalizer of splitmix64, Steele, Lea and Flood, 2014)."""
    value = (one ^ other) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def sticky_fraction(sticky: int, replica_sticky: int) -> float:
    """A number in [0, 1) that depends on both hashes: rendezvous hashing.

    Every session ranks all replicas in an order of its own, and a replica that leaves moves nobody else (Thaler and
    Ravishankar, "Using name-based mappings to increase hit rates", 1998).
    """
    return mixed(sticky, replica_sticky) / _FULL


def route_order(sticky: int, routes: Iterable[Route]) -> dict[str, int]:
    """Deployments by the order in which this request prefers them: 0 is first.

    Over many requests each deployment comes first as often as its weight says (weighted rendezvous hashing: the score
    of a route is weight / -ln(hash)), and a change of one weight moves only the share that it changes.
    """

    def preference(route: Route) -> float:
        fraction = (mixed(sticky, hash64(route.deployment)) + 1) / (_FULL + 1)
        return -route.weight / math.log(fraction)

    ordered = sorted(routes, key=lambda route: (-preference(route), route.deployment))
    return {route.deployment: position for position, route in enumerate(ordered)}
