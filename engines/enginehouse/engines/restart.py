"""When an engine that ended is started again, and when that is given up."""

import random
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Capped exponential backoff, and a limit.

    Args:
        backoff_initial_s: wait before the first restart; each further one doubles it.
        backoff_max_s: longest wait.
        jitter: share of a wait that is left to chance, 0 to 1, so that the engines of a host do not start in step.
        stable_s: an engine that was serving for so long starts again at the first wait.
        crashes_max: ends within `window_s` after which the replica is failed. None: never, as for an engine that
            somebody else runs.
        window_s: the window of `crashes_max`.
    """

    backoff_initial_s: float = 0.5
    backoff_max_s: float = 30.0
    jitter: float = 0.1
    stable_s: float = 60.0
    crashes_max: int | None = 5
    window_s: float = 300.0


class RestartTracker:
    """Counts ends and hands out waits. Time and chance are the caller's."""

    def __init__(self, policy: RestartPolicy, chance: random.Random) -> None:
        self._policy = policy
        self._chance = chance
        self._doublings = 0
        self._ends: deque[float] = deque(maxlen=policy.crashes_max or 1)

    def wait_s(self, *, now_s: float, served_s: float) -> float | None:
        """Seconds to wait before the next start, or None to give up.

        Args:
            now_s: the monotonic time of the end.
            served_s: how long the engine that ended had been serving.
        """
        policy = self._policy
        self._ends.append(now_s)
        is_full = policy.crashes_max is not None and len(self._ends) == policy.crashes_max
        if is_full and now_s - self._ends[0] <= policy.window_s:
            return None
        if served_s >= policy.stable_s:
            self._doublings = 0
        wait_s = min(policy.backoff_max_s, policy.backoff_initial_s * 2.0**self._doublings)
        if wait_s < policy.backoff_max_s:
            self._doublings += 1
        return wait_s * (1.0 - policy.jitter * self._chance.random())
