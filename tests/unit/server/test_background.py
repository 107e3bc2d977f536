"""Tasks that end with their owner."""

import asyncio

from enginehouse.services.background import Background


async def test_task_that_loses_a_cancellation_is_asked_again() -> None:
    background, asked = Background(), 0
    started = asyncio.Event()

    async def work() -> None:
        nonlocal asked
        while True:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asked += 1
                if asked == 2:
                    raise

    task = background.start(work(), "stubborn")
    await started.wait()
    await background.stop()
    assert task.cancelled()
    assert asked == 2


async def test_stop_waits_for_what_a_task_does_at_its_end() -> None:
    background, ended = Background(), False
    started = asyncio.Event()

    async def work() -> None:
        nonlocal ended
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    background.start(work(), "tidy")
    await started.wait()
    await background.stop()
    assert ended
