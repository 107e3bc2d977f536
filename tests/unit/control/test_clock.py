"""The clocks and protobuf's times."""

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from enginehouse.services.control import SystemClock
from enginehouse.services.control.durations import (
    duration_of_ms,
    ms_of_duration,
    ms_of_timestamp,
    shorten,
    timestamp_of_ms,
)


def test_the_steady_clock_does_not_jump_with_the_wall() -> None:
    clock = SystemClock()
    before = clock.steady_ms()
    assert abs(before - clock.wall_ms()) < 60_000
    with patch("time.time_ns", return_value=0):
        assert clock.wall_ms() == 0
        assert clock.steady_ms() >= before


@given(unix_ms=st.integers(-(10**13), 10**13))
def test_timestamps_keep_every_millisecond(unix_ms: int) -> None:
    assert ms_of_timestamp(timestamp_of_ms(unix_ms)) == unix_ms
    assert timestamp_of_ms(unix_ms).ToMilliseconds() == unix_ms


@given(length_ms=st.integers(-(10**12), 10**12), by_ms=st.integers(0, 10**12))
def test_durations_are_never_negative(length_ms: int, by_ms: int) -> None:
    duration = duration_of_ms(length_ms)
    assert ms_of_duration(duration) == max(0, length_ms)
    shorten(duration, by_ms)
    assert ms_of_duration(duration) == max(0, max(0, length_ms) - by_ms)
