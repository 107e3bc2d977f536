"""Whether the mesh serves: one client that asks for nothing but an answer, one time after the other."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.guarantees.asking import Door, Order, Outcome, ask
from tests.guarantees.configuration import CANARY
from tests.support.caller import Caller
from tests.support.mesh import UserMesh
from tests.support.waiting import until, until_async

_SERVED_AFTER = 10
_BACK_S = 60.0
_PAUSE_S = 0.02


class Canary:
    """Notes when it was served, and when not, on the monotonic clock."""

    def __init__(self) -> None:
        self._served: list[float] = []
        self._failed: list[float] = []

    async def sing(self, caller: Caller) -> None:
        """Asks for ever."""
        order = Order(Door.OPENAI_UNARY, CANARY, is_cut=False)
        while True:
            outcome = await ask(caller, order, lambda: None)
            (self._served if outcome is Outcome.WHOLE else self._failed).append(time.monotonic())
            await asyncio.sleep(_PAUSE_S)

    def served_since(self, moment_s: float) -> int:
        """How often it was served after the last time that it was not, counted from a moment on."""
        last_s = max([moment_s, *self._failed])
        return sum(served_s > last_s for served_s in self._served)

    def outage_s(self, kill_s: float) -> float:
        """From the kill until it was served again, for good."""
        last_s = max([kill_s, *self._failed])
        return min(served_s for served_s in self._served if served_s > last_s) - kill_s


@asynccontextmanager
async def singing(caller: Caller) -> AsyncIterator[Canary]:
    """A canary for as long as the block runs."""
    canary = Canary()
    task = asyncio.create_task(canary.sing(caller))
    try:
        yield canary
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def kill_and_recover(mesh: UserMesh, canary: Canary, member: str) -> float:
    """SIGKILL to a member or to Envoy; returns how long it took until requests were served again, in seconds."""
    kill_s = time.monotonic()
    pid = await asyncio.to_thread(mesh.kill, member)

    async def is_replaced() -> bool:
        return (await asyncio.to_thread(mesh.process_ids)).get(member, pid) != pid

    await until_async(is_replaced, f"{member} was started again", _BACK_S)
    await until(lambda: canary.served_since(kill_s) >= _SERVED_AFTER, "requests are served again", _BACK_S)
    return canary.outage_s(kill_s)
