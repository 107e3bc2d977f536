"""Control killed in the middle of its work, again and again."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from enginehouse.services.control import SystemClock
from enginehouse.services.server import channel
from enginehouse.v1 import ledger_pb2_grpc
from tests.integration.control.concurrency_suite import check_books, make_limits
from tests.integration.control.load import LIMITS, Ledger, LoadRouter
from tests.integration.control.support import ManualClock, running
from tests.support.waiting import until

KILLS = 3
ANSWERS_BETWEEN = 120
ROUTERS = 6
DEADLINE_S = 60.0
_PROGRAM = Path(__file__).with_name("control_process.py")


@asynccontextmanager
async def control_process(database_url: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Runs control in a process of its own, and yields it with its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(_PROGRAM), database_url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            port = int(await process.stdout.readline())
        yield process, f"127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def kill_under_load(database_url: str, ledger: Ledger, enough: int, clients: AsyncExitStack) -> None:
    """Serves until there are `enough` answers, then kills control with the next calls on their way."""
    async with control_process(database_url) as (process, address):
        # open past the end, so that calls fail as they do when a server dies and are not canceled on this side
        client = await clients.enter_async_context(channel(address))
        await ledger.set(ledger_pb2_grpc.LedgerServiceStub(client))
        await until(lambda: ledger.answers >= enough, f"{enough} answers", DEADLINE_S)
        process.kill()
        await process.wait()
        await ledger.set(None)


class CrashSuite:
    """Inherited by each backend, which provides `database_url`."""

    async def test_nothing_that_was_answered_is_lost_when_control_is_killed_under_load(self, database_url: str) -> None:
        now_ms = SystemClock().wall_ms()
        clock = ManualClock(now_ms, now_ms)
        async with running(database_url, clock=clock) as mesh:
            await make_limits(mesh)
        ledger = Ledger()
        routers = [LoadRouter(f"r{number}", ledger, seed=number) for number in range(ROUTERS)]
        over = asyncio.Event()
        async with AsyncExitStack() as clients, asyncio.TaskGroup() as work:
            for router in routers:
                work.create_task(router.run(over.is_set))
            for kill in range(KILLS):
                await kill_under_load(database_url, ledger, (kill + 1) * ANSWERS_BETWEEN, clients)
                async with running(database_url, clock=clock) as mesh:
                    assert await mesh.check_invariants() == len(LIMITS)
            mesh = await clients.enter_async_context(running(database_url, clock=clock))
            await ledger.set(mesh.ledger)
            await until(lambda: ledger.answers >= (KILLS + 1) * ANSWERS_BETWEEN, "the last answers", DEADLINE_S)
            over.set()
        async with running(database_url, clock=clock) as mesh:
            await mesh.check_invariants()
            await check_books(mesh, routers)
