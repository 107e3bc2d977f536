"""The two clocks of control."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where control takes the time from."""

    def wall_ms(self) -> int:
        """Unix milliseconds as the system has them: for windows, expiry and records."""
        ...

    def steady_ms(self) -> int:
        """Unix milliseconds that never jump: for terms, so that a clock set forward ends nobody's share early."""
        ...


class SystemClock:
    """The system's clocks. The steady one starts at wall time and then follows boot time, suspension included."""

    def __init__(self) -> None:
        self._offset_ms = time.time_ns() // 1_000_000 - _boot_ms()

    def wall_ms(self) -> int:
        """Unix milliseconds."""
        return time.time_ns() // 1_000_000

    def steady_ms(self) -> int:
        """Unix milliseconds since the start of this process, counted by boot time."""
        return self._offset_ms + _boot_ms()


def _boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
