"""Time as a parameter: the clock that supervision runs on, and deadlines on it."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")
_LOOK_S = 1.0


class Clock(Protocol):
    """A source of time. Tests hand in one that they advance themselves."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment, never going back."""
        ...

    def now(self) -> datetime:
        """The time of day, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns once `seconds` have passed."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment, never going back."""
        return time.monotonic()

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Returns once `seconds` have passed."""
        await asyncio.sleep(seconds)


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled after `seconds` of `clock`.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(work)
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise TimeoutError(f"not done within {seconds:g} s")
    finally:
        await cancel(task)
        await cancel(timer)


async def while_moving(
    clock: Clock,
    work: Coroutine[Any, Any, Result],
    progress: Callable[[], object],
    *,
    idle_s: float,
    longest_s: float,
) -> Result:
    """The result of `work`, which is cancelled once `progress` has given the same for `idle_s` seconds of `clock`.

    Args:
        clock: what the seconds are of.
        work: what is waited for.
        progress: anything that differs while something is being done; looked at once a second.
        idle_s: without progress.
        longest_s: with or without.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(work)
    began_s = moved_s = clock.monotonic()
    seen = progress()
    try:
        while True:
            until_s = min(moved_s + idle_s, began_s + longest_s)
            left_s = until_s - clock.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"not done within {until_s - began_s:g} s")
            timer = asyncio.ensure_future(clock.sleep(min(left_s, _LOOK_S)))
            try:
                await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel(timer)
            if task.done():
                return task.result()
            if (now := progress()) != seen:
                seen, moved_s = now, clock.monotonic()
    finally:
        await cancel(task)


async def cancel(task: asyncio.Future[Any]) -> None:
    """Cancels `task` and waits until it has ended, however it ends."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
