"""Routers that lease, charge and give back at random, and know exactly what the ledger must say in the end."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import grpc.aio

from enginehouse.contract import DependencyError
from enginehouse.services.server import error_from_rpc
from enginehouse.v1 import ledger_pb2, ledger_pb2_grpc

_T = TypeVar("_T")

LIMITS = ("budget", "tokens", "model")
CAP = 1_000_000


class Ledger:
    """The way to a ledger that may die and come back elsewhere."""

    def __init__(self) -> None:
        self._stub: ledger_pb2_grpc.LedgerServiceAsyncStub | None = None
        self._there = asyncio.Condition()
        self.answers = 0

    async def set(self, stub: "ledger_pb2_grpc.LedgerServiceAsyncStub | None") -> None:
        async with self._there:
            self._stub = stub
            self._there.notify_all()

    async def get(self) -> "ledger_pb2_grpc.LedgerServiceAsyncStub":
        async with self._there:
            await self._there.wait_for(lambda: self._stub is not None)
            assert self._stub is not None
            return self._stub


@dataclass
class LoadRouter:
    """One router process: in `book` is what it must have left."""

    name: str
    ledger: Ledger
    seed: int
    fence: int = 0
    book: Counter[str] = field(default_factory=Counter)
    limit_of: dict[str, str] = field(default_factory=dict)
    spent: Counter[str] = field(default_factory=Counter)
    requests: int = 0

    async def run(self, is_over: Callable[[], bool]) -> None:
        chance = random.Random(self.seed)
        request = ledger_pb2.EnrollRequest(router=self.name)
        self.fence = (await self._until_answered(lambda stub: stub.Enroll(request))).fence
        deeds = (self._acquire, self._acquire, self._settle, self._settle, self._settle, self._release)
        while not is_over():
            await chance.choice(deeds)(chance)
            self.ledger.answers += 1

    async def _acquire(self, chance: random.Random) -> None:
        demands = [
            ledger_pb2.AllowanceDemand(
                limit=limit, amount_min=chance.randint(0, 50), amount_want=chance.randint(0, 200)
            )
            for limit in chance.sample(LIMITS, chance.randint(1, len(LIMITS)))
        ]
        request = ledger_pb2.AcquireAllowancesRequest(
            router=self.name,
            fence=self.fence,
            acquisition_id=uuid.UUID(int=chance.getrandbits(128)).hex,
            demands=demands,
        )
        answer = await self._until_answered(lambda stub: stub.AcquireAllowances(request))
        assert len(answer.allowances) == len(demands) or answer.shortages
        for allowance in answer.allowances:
            self.book[allowance.id] += allowance.amount
            self.limit_of[allowance.id] = allowance.limit

    async def _settle(self, chance: random.Random) -> None:
        charges = []
        for share in chance.sample(sorted(self.book), min(len(self.book), 3)):
            amount = min(chance.randint(1, 30), self.book[share])
            if amount:
                self.requests += 1
                self.book[share] -= amount
                self.spent[self.limit_of[share]] += amount
                charges.append(
                    ledger_pb2.Charge(
                        request_id=f"{self.name}-{self.fence}-{self.requests}",
                        limit=self.limit_of[share],
                        allowance=share,
                        amount=amount,
                    )
                )
        request = ledger_pb2.SettleChargesRequest(router=self.name, fence=self.fence, charges=charges)
        await self._until_answered(lambda stub: stub.SettleCharges(request))

    async def _release(self, chance: random.Random) -> None:
        if not self.book:
            return
        share = chance.choice(sorted(self.book))
        amount = self.book[share] // 2
        self.book[share] -= amount
        part = ledger_pb2.AllowanceReturn(allowance=share, amount=amount)
        request = ledger_pb2.ReleaseAllowancesRequest(
            router=self.name, fence=self.fence, returns=[part], release_id=uuid.UUID(int=chance.getrandbits(128)).hex
        )
        await self._until_answered(lambda stub: stub.ReleaseAllowances(request))

    async def _until_answered(self, call: "Callable[[ledger_pb2_grpc.LedgerServiceAsyncStub], Awaitable[_T]]") -> _T:
        while True:
            stub = await self.ledger.get()
            try:
                return await call(stub)
            except grpc.aio.AioRpcError as error:
                if not isinstance(error_from_rpc(error), DependencyError):
                    raise
            await asyncio.sleep(0.01)
