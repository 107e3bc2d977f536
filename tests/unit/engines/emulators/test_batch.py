"""The latency and throughput model."""

import pytest

from enginehouse.engines.emulators.core.batch import Batch, Pace
from enginehouse.engines.emulators.core.errors import Overloaded


def test_a_prompt_takes_its_tokens_over_the_prefill_rate() -> None:
    assert Pace(prefill=100.0).prefill_s(50) == 0.5
    assert Pace().prefill_s(50) == 0.0


def test_steps_lengthen_once_the_batch_asks_for_more_than_the_throughput() -> None:
    pace = Pace(decode=50.0, throughput=200.0)
    assert [pace.step_s(running) for running in (1, 4, 8)] == [0.02, 0.02, 0.04]


async def test_places_are_given_in_turn() -> None:
    batch = Batch(Pace(), places=1, queue_max=2)
    first, second, third = (batch.enter() for _ in range(3))
    assert (first.done(), second.done(), third.done()) == (True, False, False)
    assert (batch.running, batch.waiting) == (1, 2)
    batch.leave(first)
    assert (second.done(), third.done()) == (True, False)
    assert (batch.running, batch.waiting) == (1, 1)


async def test_one_too_many_is_overload() -> None:
    batch = Batch(Pace(), places=1, queue_max=0)
    batch.enter()
    with pytest.raises(Overloaded):
        batch.enter()


async def test_whoever_gives_up_waiting_takes_no_place() -> None:
    batch = Batch(Pace(), places=1, queue_max=5)
    first, second, third = (batch.enter() for _ in range(3))
    batch.leave(second)
    batch.leave(first)
    assert third.done()
    batch.leave(third)
    assert (batch.running, batch.waiting) == (0, 0)
