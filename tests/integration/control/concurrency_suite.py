"""The ledger under many hands at once."""

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import ClassVar

from enginehouse.v1 import ledger_pb2
from tests.integration.control.load import CAP, LIMITS, Ledger, LoadRouter
from tests.integration.control.support import Harness, running

ANSWERS = 300
ROUTERS = 8


async def make_limits(mesh: Harness) -> None:
    """The limits of `load`, wide enough for all of it."""
    units = (ledger_pb2.LIMIT_UNIT_USD, ledger_pb2.LIMIT_UNIT_TOKENS, ledger_pb2.LIMIT_UNIT_REQUESTS)
    for name, unit in zip(LIMITS, units, strict=True):
        await mesh.limit(name, CAP, unit)


async def check_books(mesh: Harness, routers: list[LoadRouter]) -> None:
    """Checks that the ledger says of every share and limit what the routers know."""
    remaining = {share.id: share.remaining for share in await mesh.shares()}
    for router in routers:
        for share, amount in router.book.items():
            assert amount == remaining[share], (router.name, share)
    assert remaining.keys() == {share for router in routers for share in router.book}
    for account in await mesh.accounts():
        assert account.spent == sum(router.spent[account.limit_id] for router in routers)
        assert account.overrun == account.written_off == 0


class ConcurrencySuite:
    """Inherited by each backend, which provides `database_url`."""

    CONTROLS: ClassVar[int] = 2
    """How many controls serve one database."""

    async def test_every_sample_keeps_the_invariants_and_the_end_is_exact(self, database_url: str) -> None:
        async with AsyncExitStack() as stack:
            meshes = [await stack.enter_async_context(running(database_url)) for _ in range(self.CONTROLS)]
            await make_limits(meshes[0])
            ledgers = [Ledger() for _ in meshes]
            for ledger, mesh in zip(ledgers, meshes, strict=True):
                await ledger.set(mesh.ledger)
            routers = [LoadRouter(f"r{number}", ledgers[number % len(ledgers)], number) for number in range(ROUTERS)]

            def is_over() -> bool:
                return sum(ledger.answers for ledger in ledgers) >= ANSWERS

            samples = 0
            async with asyncio.TaskGroup() as group:
                for router in routers:
                    group.create_task(router.run(is_over))
                group.create_task(_change_caps(meshes[-1], is_over))
                while not is_over():
                    await meshes[0].check_invariants()
                    samples += 1
                    await asyncio.sleep(0.01)  # readers without a pause keep SQLite from ever emptying its log
            assert samples > 10
            await check_books(meshes[0], routers)
            assert sum(router.requests for router in routers) > ANSWERS / 4

    async def test_many_who_want_the_last_of_a_budget_get_no_more_than_it(self, database_url: str) -> None:
        async with AsyncExitStack() as stack:
            meshes = [await stack.enter_async_context(running(database_url)) for _ in range(self.CONTROLS)]
            await meshes[0].limit("budget", 37 * 10)
            routers = await asyncio.gather(*(meshes[number % len(meshes)].router(f"r{number}") for number in range(10)))
            answers = await asyncio.gather(*(router.acquire({"budget": (10, 10)}) for router in routers * 10))
            granted = sum(allowance.amount for answer in answers for allowance in answer.allowances)
            assert 0 <= 37 * 10 - granted < 10
            assert any(answer.shortages for answer in answers)
            await meshes[0].check_invariants()


async def _change_caps(mesh: Harness, is_over: Callable[[], bool]) -> None:
    chance = random.Random(0)
    while not is_over():
        await mesh.set_cap(chance.choice(LIMITS), chance.randint(CAP // 100, CAP))
        await asyncio.sleep(0.02)
