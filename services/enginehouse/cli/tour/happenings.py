"""Stop 6: all of this, as events."""

import asyncio
from collections import Counter

from enginehouse.cli.events import describe
from enginehouse.cli.tour.guide import Tour

_SHOWN = 8


async def happenings(tour: Tour) -> None:
    """Shows what a subscriber read from NATS meanwhile."""
    tour.heading(6, "What a subscriber read from NATS meanwhile")
    async with asyncio.timeout(10):
        while not any(".settled" in message.subject for message in tour.happened):
            await asyncio.sleep(0.02)
    counts = Counter(_kind(message.subject) for message in tour.happened)
    tour.say(", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())), "cyan")
    lifecycle = [message for message in tour.happened if message.subject.split(".")[2] in ("node", "replica")]
    tour.tell("the node that was killed, and its engines:")
    for message in lifecycle[:_SHOWN]:
        tour.say(f"  {describe(message)}")
    tour.tell("the last decisions and settlements:")
    for message in [message for message in tour.happened if message not in lifecycle][-4:]:
        tour.say(f"  {describe(message)}")


def _kind(subject: str) -> str:
    _, _, kind, _, what = subject.split(".")
    return f"{kind}.{what}"
