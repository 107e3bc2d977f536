"""The order among candidates: highest score first, ties by a hash that can be computed again."""

from hashlib import blake2b

from enginehouse.router.replica import Replica
from enginehouse.router.request import Request

_FULL = 1 << 64


def sticky_fraction(request: Request, replica: Replica) -> float:
    """A number in [0, 1) that depends on the request's session (or, without one, on the request) and on the replica."""
    digest = blake2b(f"{request.sticky_key}\n{replica.id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / _FULL


def order_key(request: Request, replica: Replica, score: float) -> tuple[float, float, str]:
    """Sorts the best candidate first."""
    return (-score, -sticky_fraction(request, replica), replica.id)
