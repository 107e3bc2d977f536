"""Stop 3: a node dies; data that must stay in the EU waits rather than leave."""

import asyncio
import os
import signal
import time

import openai

from enginehouse.cli.tour.guide import MODEL, Tour, message_of
from enginehouse.contract import DependencyError

NODE = "node-eu-de"
_BACK_S = 60.0
_DEAD_S = 1.0


async def residency(tour: Tour) -> None:
    """Kills the EU node with SIGKILL and shows who is refused, who moves, and how service returns."""
    tour.heading(3, "Residency: fail closed")
    tour.say(
        f"europe is served by {await _served_by(tour, 'europe')}; anywhere by {await _served_by(tour, 'anywhere')}"
    )
    pid = tour.mesh.process_id(NODE)
    if pid is None:
        raise DependencyError(f"{NODE} is not a process of this mesh; the tour needs the default settings")
    tour.say(f"kill -9 {pid}   ({NODE}, and with it its engines)", "bold red")
    os.kill(pid, signal.SIGKILL)
    killed_s = time.monotonic()
    error = await _until_refused(tour)
    tour.say(
        f"europe is refused: {error.status_code}, retry-after {error.response.headers.get('retry-after')} s", "yellow"
    )
    tour.say(f"  {message_of(error)}")
    tour.say(f"picky moves to {await _served_by(tour, 'picky')}", "green")
    tour.tell("the node is started again by its supervisor, and the node starts its engines …")
    await _until_served(tour)
    tour.say(f"europe is served again, {time.monotonic() - killed_s:.1f} s after the kill", "green")


async def _until_refused(tour: Tour) -> openai.APIStatusError:
    """The refusal. A node that was just killed may take a moment to die, and its engines with it."""
    try:
        async with asyncio.timeout(_DEAD_S):
            while True:
                await _ask(tour, "europe")
    except openai.APIStatusError as error:
        return error
    except TimeoutError:
        raise DependencyError("a request that must stay in the EU was served although the EU node is dead") from None


async def _until_served(tour: Tour) -> None:
    async with asyncio.timeout(_BACK_S):
        while True:
            try:
                await _ask(tour, "europe")
            except openai.APIStatusError as error:
                if error.status_code < 500:
                    raise
                await asyncio.sleep(0.1)
            else:
                return


async def _ask(tour: Tour, tenant: str) -> str:
    answer = await tour.client(tenant).chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=4
    )
    return str(answer.headers.get("x-enginehouse-decision", ""))


async def _served_by(tour: Tour, tenant: str) -> str:
    decision_id = await _ask(tour, tenant)
    for decision in tour.watcher.picture.decisions:
        if decision.id == decision_id:
            return decision.attempts[0].replica
    return "a replica"
