"""One budget under load: who asks against it, what its engines really did, and what the ledger says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from enginehouse.v1 import admin_pb2, common_pb2, events_pb2, ledger_pb2
from tests.guarantees.asking import Door, Order, Outcome, ask
from tests.guarantees.tariff import LEFT_AFTER_TOKENS, PROMPT_TOKENS, Tariff, Work
from tests.support.caller import Caller
from tests.support.echo import PROBE_PROMPT_TOKENS, EchoControls, EchoCounts
from tests.support.happenings import Events
from tests.support.operator import Operator
from tests.support.waiting import until_async

_CUT_EVERY = 3
_SAMPLE_S = 0.02
_STILL_S = 0.5
_FAULTS = 1_000_000
_ROUNDS_MAX = 12
_AGAIN = (Outcome.REFUSED, Outcome.UNAVAILABLE)


@dataclass
class Budget:
    """A tenant whose budget is enough for a third of its requests.

    Attributes:
        cap: in nano-USD.
        whole, cut: the engines; clients leave the second in the middle.
        work: what the engines did for it.
        peak: most that was ever spent and allotted at once.
        first: how each request ended at first.
        last: how each ended when it was asked for the last time.
        begun: how many have begun to answer.
        excess: what was charged beyond the engines' work when the doubt about it was over, in nano-USD.
    """

    operator: Operator
    tariff: Tariff
    caller: Caller
    limit: str
    cap: int
    orders: Sequence[Order]
    whole: EchoControls
    cut: EchoControls
    events: Events
    work: Work = field(default_factory=Work)
    peak: int = 0
    first: list[Outcome] = field(default_factory=list)
    last: list[Outcome] = field(default_factory=list)
    begun: int = 0
    excess: int = 0

    @classmethod
    async def make(cls, operator: Operator, tariff: Tariff, requests: int, events: Events) -> "Budget":
        """A new tenant with its budget, which the routers know."""
        caller, cap = await operator.caller(), tariff.need_nanousd * requests // 3
        model = f"{tariff.name}-whole"
        limit = await operator.limit(caller, ledger_pb2.LIMIT_UNIT_USD, cap, model=model)
        whole = await operator.engine(f"{tariff.name}-whole-eu-de-0")
        cut = await operator.engine(f"{tariff.name}-cut-eu-de-0")
        orders = [_order(tariff, number) for number in range(requests)]
        return cls(operator, tariff, caller, limit, cap, orders, whole, cut, events)

    async def ask_all(self) -> None:
        """Every request, at once."""
        async with self._counting():
            self.first = await asyncio.gather(*(self._ask(order) for order in self.orders))
        self.last = list(self.first)

    async def ask_again(self) -> None:
        """Asks again what was refused, until nobody is served any more; what is due is settled before each round.

        A hold is more than a charge, so a budget that is exhausted by holds has something left once they are settled.
        """
        for _ in range(_ROUNDS_MAX):
            asked = [number for number, outcome in enumerate(self.last) if outcome in _AGAIN]
            if not asked or not self.fits(1):
                return
            async with self._counting():
                ends = await asyncio.gather(*(self._ask(self.orders[number]) for number in asked))
            for number, outcome in zip(asked, ends, strict=True):
                self.last[number] = outcome
            if all(outcome in _AGAIN for outcome in ends):
                return
            await self.until_settled(20)

    def fits(self, requests: int) -> bool:
        """Whether the budget has room for so many more, by what the engines did."""
        return self.used + requests * self.tariff.need_nanousd <= self.cap

    @property
    def used(self) -> int:
        """What the engines' work costs, in nano-USD."""
        return self.tariff.cost_nanousd(self.work)

    async def status(self) -> admin_pb2.LimitStatus:
        """What the ledger says."""
        status = await self.operator.status(self.limit)
        self.peak = max(self.peak, status.spent + status.allotted)
        return status

    async def until_settled(self, deadline_s: float) -> None:
        """Waits until the ledger has charged what the engines did, or `deadline_s`."""

        async def is_settled() -> bool:
            return (await self.status()).spent == self.used + self.excess

        with contextlib.suppress(AssertionError):  # the drift is what is measured
            await until_async(is_settled, "everything is charged", deadline_s)

    async def until_nothing_is_leased(self, deadline_s: float) -> None:
        """Waits until the doubt is over, and routers have given back what they do not use."""

        async def is_free() -> bool:
            return (await self.status()).allotted == 0

        with contextlib.suppress(AssertionError):  # what is left is told
            await until_async(is_free, "nothing is leased", deadline_s)

    def charged_by_bound(self) -> int:
        """What was charged by upper bounds, because nobody knew what was used."""
        tenant, charged = self.caller.tenant.encode(), 0
        for event in self.events.of("request.settled"):
            if tenant in event.data:
                settled = event.payload(events_pb2.RequestSettled)
                is_bound = settled.usage.method == common_pb2.USAGE_METHOD_UPPER_BOUND
                charged += settled.charged_nanousd if is_bound else 0
        return charged

    @asynccontextmanager
    async def sampled(self) -> AsyncIterator[None]:
        """Looks at the ledger again and again for as long as the block runs."""

        async def sample() -> None:
            while True:
                await self.status()
                await asyncio.sleep(_SAMPLE_S)

        task = asyncio.create_task(sample())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _ask(self, order: Order) -> Outcome:
        return await ask(self.caller, order, self._note_begin)

    def _note_begin(self) -> None:
        self.begun += 1

    @asynccontextmanager
    async def _counting(self) -> AsyncIterator[None]:
        """Adds what the engines do within the block, and after it for clients that are gone."""
        await self.cut.plan_fault("hang", after_tokens=LEFT_AFTER_TOKENS, requests=_FAULTS)
        engines = (self.whole, self.cut)
        before = [await engine.counts() for engine in engines]
        try:
            yield
        finally:
            for engine in engines:
                await _until_still(engine)
            await self.cut.clear_faults()
        for engine, counts in zip(engines, before, strict=True):
            self.work += _work(counts, await engine.counts())


def _order(tariff: Tariff, number: int) -> Order:
    door = Door(number % len(Door))
    is_cut = door is not Door.OPENAI_UNARY and number // len(Door) % _CUT_EVERY == 0
    return Order(door, f"{tariff.name}-{'cut' if is_cut else 'whole'}", is_cut)


async def _until_still(engine: EchoControls) -> None:
    """Waits until the engine works on nothing. The node's probe may hang in it, by the fault that is planned."""
    while True:
        before = await engine.counts()
        if before.running + before.waiting == 0:
            return
        await asyncio.sleep(_STILL_S)
        after = await engine.counts()
        if (after.prompt_tokens, after.generated_tokens) == (before.prompt_tokens, before.generated_tokens):
            return


def _work(before: EchoCounts, after: EchoCounts) -> Work:
    """What was done in between, without the node's probes: these are small, and few."""
    requests, rest = divmod(after.prompt_tokens - before.prompt_tokens, PROMPT_TOKENS)
    probes, odd = divmod(rest, PROBE_PROMPT_TOKENS)
    assert odd == 0, f"{rest} prompt tokens are no whole number of probes"
    return Work(requests, after.generated_tokens - before.generated_tokens - probes)
