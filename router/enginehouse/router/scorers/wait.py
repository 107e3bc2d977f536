"""How soon a replica will begin."""

from enginehouse.router.bounds import Bounds
from enginehouse.router.replica import Load, Replica

_ASSUMED_PREFILL = 10_000.0
_ASSUMED_DECODE = 100.0
_STEPS_PER_S = 10


def predicted_wait_s(replica: Replica, load: Load, in_flight: int, bounds: Bounds) -> float:
    """Seconds until the first token: for the requests in front that have no slot yet, then for the own prompt.

    The requests in front are taken to be of this one's size, and the replica to work through them at the rates it was
    measured with. A rate that is not known yet is assumed, and rather high: a replica that seems slow is never asked,
    and so never measured.

    Args:
        replica: where.
        load: what its node reported.
        in_flight: requests that this router has there, which the report may not know yet.
        bounds: of the request.
    """
    prefill_s = bounds.input_tokens / (load.prefill_tokens_per_second or _ASSUMED_PREFILL)
    in_front = max(in_flight, load.running + load.waiting)
    if in_front < replica.parallel:
        return prefill_s
    decode_s = bounds.output_tokens / (load.decode_tokens_per_second or _ASSUMED_DECODE)
    rounds = (in_front - replica.parallel + 1) / replica.parallel
    return rounds * (prefill_s + decode_s) + prefill_s


def wait_score(wait_s: float) -> float:
    """1 for no wait, one half for a second, falling towards 0.

    In steps of a tenth of a second: predictions are no better than that, and replicas that differ by less should share
    the requests instead of one having them all.
    """
    return 1.0 / (1.0 + int(wait_s * _STEPS_PER_S) / _STEPS_PER_S)
