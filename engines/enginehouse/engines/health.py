"""When an engine counts as degraded, and when as well again: liveness with hysteresis."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """How liveness is judged. One slow answer never takes an engine out of rotation.

    Args:
        interval_s: between the end of one check and the begin of the next.
        timeout_s: of one check.
        failures_max: checks that fail in a row until the replica is degraded.
        successes_min: checks that succeed in a row until it is ready again.
        degraded_max_s: a replica that is degraded for longer is started anew.
    """

    interval_s: float = 5.0
    timeout_s: float = 10.0
    failures_max: int = 3
    successes_min: int = 2
    degraded_max_s: float = 120.0


class Verdict(Enum):
    """What a check changed."""

    UNCHANGED = 1
    DEGRADED = 2
    RECOVERED = 3


class Hysteresis:
    """Counts checks in a row."""

    def __init__(self, policy: HealthPolicy) -> None:
        self._policy = policy
        self._is_degraded = False
        self._against = 0

    def succeeded(self) -> Verdict:
        """A check found the engine alive."""
        if not self._is_degraded:
            self._against = 0
            return Verdict.UNCHANGED
        return self._count(self._policy.successes_min, Verdict.RECOVERED)

    def failed(self) -> Verdict:
        """A check found no life."""
        if self._is_degraded:
            self._against = 0
            return Verdict.UNCHANGED
        return self._count(self._policy.failures_max, Verdict.DEGRADED)

    def _count(self, needed: int, verdict: Verdict) -> Verdict:
        self._against += 1
        if self._against < needed:
            return Verdict.UNCHANGED
        self._against = 0
        self._is_degraded = not self._is_degraded
        return verdict
