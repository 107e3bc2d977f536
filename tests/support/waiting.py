"""Waiting for something to become true, with a deadline instead of a sleep of hopeful length."""

import asyncio
from collections.abc import Awaitable, Callable

DEADLINE_S = 20.0
_STEP_S = 0.01


async def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Returns once `condition` is true; fails naming `what` after `deadline_s`."""
    try:
        async with asyncio.timeout(deadline_s):
            while not condition():
                await asyncio.sleep(_STEP_S)
    except TimeoutError:
        raise AssertionError(f"not within {deadline_s} s: {what}") from None


async def until_async(condition: Callable[[], Awaitable[object]], what: str, deadline_s: float = DEADLINE_S) -> None:
    """As `until`, for a condition that has to be awaited."""
    try:
        async with asyncio.timeout(deadline_s):
            while not await condition():
                await asyncio.sleep(_STEP_S)
    except TimeoutError:
        raise AssertionError(f"not within {deadline_s} s: {what}") from None
