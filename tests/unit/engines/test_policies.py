"""Restart and health policies as plain arithmetic."""

import random

from hypothesis import given
from hypothesis import strategies as st

from enginehouse.engines import HealthPolicy, RestartPolicy
from enginehouse.engines.health import Hysteresis, Verdict
from enginehouse.engines.restart import RestartTracker


@given(
    st.lists(st.floats(0, 1000), max_size=50),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_wait_never_leaves_its_bounds(served: list[float], jitter: float, seed: int) -> None:
    policy = RestartPolicy(backoff_initial_s=1.0, backoff_max_s=30.0, jitter=jitter, crashes_max=None)
    tracker = RestartTracker(policy, random.Random(seed))
    for now_s, served_s in enumerate(served):
        wait_s = tracker.wait_s(now_s=float(now_s), served_s=served_s)
        assert wait_s is not None
        assert (1.0 - jitter) * 1.0 <= wait_s <= 30.0


@given(st.lists(st.floats(0, 400), min_size=1, max_size=30), st.integers(1, 6))
def test_given_up_exactly_when_the_window_holds_too_many_ends(gaps: list[float], crashes_max: int) -> None:
    policy = RestartPolicy(crashes_max=crashes_max, window_s=300.0)
    tracker = RestartTracker(policy, random.Random(0))
    times: list[float] = []
    for gap in gaps:
        times.append((times[-1] if times else 0.0) + gap)
        given_up = tracker.wait_s(now_s=times[-1], served_s=0.0) is None
        assert given_up == (len([at for at in times if times[-1] - at <= 300.0]) >= crashes_max)


@given(st.lists(st.booleans(), max_size=100))
def test_health_turns_only_after_enough_checks_in_a_row(checks: list[bool]) -> None:
    hysteresis = Hysteresis(HealthPolicy(failures_max=3, successes_min=2))
    is_degraded = False
    in_a_row = 0
    for is_alive in checks:
        in_a_row = in_a_row + 1 if is_alive == is_degraded else 0
        verdict = hysteresis.succeeded() if is_alive else hysteresis.failed()
        if in_a_row == (2 if is_degraded else 3):
            assert verdict is (Verdict.RECOVERED if is_degraded else Verdict.DEGRADED)
            is_degraded, in_a_row = not is_degraded, 0
        else:
            assert verdict is Verdict.UNCHANGED
