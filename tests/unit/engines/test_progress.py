"""Deadlines of a start that count from the last sign of progress: loading is not failing."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from enginehouse.engines.clock import while_moving
from tests.unit.engines.virtual import VirtualClock, run_virtual


class Loading:
    """An engine that writes a line every so often, and is done after a while."""

    def __init__(self, *, line_every_s: float, done_after_s: float) -> None:
        self._line_every_s = line_every_s
        self._done_after_s = done_after_s

    def lines(self) -> int:
        return int(asyncio.get_running_loop().time() / self._line_every_s)

    async def work(self) -> str:
        await asyncio.sleep(self._done_after_s)
        return "loaded"


def wait(loading: Loading, *, idle_s: float, longest_s: float) -> Coroutine[Any, Any, str]:
    return while_moving(VirtualClock(), loading.work(), loading.lines, idle_s=idle_s, longest_s=longest_s)


def test_start_that_gets_on_may_take_many_times_its_deadline() -> None:
    loading = Loading(line_every_s=50, done_after_s=1000)
    assert run_virtual(wait(loading, idle_s=60, longest_s=3600)) == "loaded"


def test_start_that_stands_still_fails_at_its_deadline() -> None:
    loading = Loading(line_every_s=100, done_after_s=1000)
    with pytest.raises(TimeoutError):
        run_virtual(wait(loading, idle_s=60, longest_s=3600))


def test_start_that_gets_on_for_ever_fails_in_the_end() -> None:
    loading = Loading(line_every_s=10, done_after_s=10_000)
    with pytest.raises(TimeoutError, match="not done within 3600 s"):
        run_virtual(wait(loading, idle_s=60, longest_s=3600))


def test_error_of_the_work_is_told() -> None:
    async def fails() -> None:
        raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke"):
        run_virtual(while_moving(VirtualClock(), fails(), lambda: 0, idle_s=1, longest_s=1))
