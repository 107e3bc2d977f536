"""One run: a burst against budgets for a third of it, a kill in its middle, and what it came to."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.guarantees.asking import Outcome
from tests.guarantees.budget import Budget
from tests.guarantees.canary import kill_and_recover, singing
from tests.guarantees.configuration import Configuration, Kill, router_names
from tests.guarantees.tariff import TARIFFS
from tests.support.caller import Caller
from tests.support.operator import Operator
from tests.support.waiting import until

_BEGUN_DIVISOR = 6
_BURST_S = 120.0
_SETTLED_S = 20.0
_DOUBT_OVER_S = 180.0
_FALSE_REFUSALS_GOAL = 0.01


@dataclass(frozen=True, slots=True)
class Row:
    """What a run came to. Money is in nano-USD, of both budgets together.

    Attributes:
        served: requests that were answered, those whose client left included.
        broken: requests whose stream or connection broke.
        wrong: answers that nothing explains.
        refused_first, unavailable_first: requests that were refused at first, with 402 and with 503.
        refused: requests that were refused with 402 in the end.
        false_refusals: those of them for which there was room in the end.
        ledger_excess: most that spent and allotted were above the cap.
        use_excess: most that the engines' work was above the cap.
        drift: what is charged less what the engines did.
        drift_max: 0, unless Envoy was killed: then what was charged by upper bounds or written off.
        leased: what routers still had when all was over.
        outage_s: from the kill until requests were served again. None: nothing was killed.
        wall_s: all of the run's own time.
    """

    configuration: Configuration
    served: int
    broken: int
    wrong: int
    unavailable_first: int
    refused_first: int
    refused: int
    false_refusals: int
    ledger_excess: int
    use_excess: int
    drift: int
    drift_max: int
    leased: int
    outage_s: float | None
    wall_s: float

    @property
    def false_refusal_rate(self) -> float:
        """Of all requests."""
        return self.false_refusals / self.configuration.requests

    @property
    def faults(self) -> list[str]:
        """Which guarantees are broken."""
        found = {
            "overspend by the ledger": self.ledger_excess > 0,
            "overspend by the engines": self.use_excess > 0,
            "under-charged": self.drift < 0,
            "over-charged": self.drift > self.drift_max,
            "false refusals": self.false_refusal_rate >= _FALSE_REFUSALS_GOAL,
            "allowances unaccounted for": self.leased != 0,
            "wrong answers": self.wrong > 0,
            "streams broken by nobody": self.broken > 0 and not self.configuration.kill.is_of_the_door,
        }
        return [name for name, is_broken in found.items() if is_broken]


class Run:
    """A run on a mesh that is up: `burst`, and then `finish`, between which others may have their bursts.

    Args:
        operator: of the mesh.
        canary: asks for nothing but an answer, without a budget.
        number: of the run on its mesh; another router is killed each time.
    """

    def __init__(self, configuration: Configuration, operator: Operator, canary: Caller, number: int) -> None:
        self.configuration = configuration
        self._operator = operator
        self._canary = canary
        names = router_names(configuration.mesh)
        self._victim = names[number % len(names)] if configuration.kill is Kill.ROUTER else configuration.kill.value
        self._budgets: list[Budget] = []
        self._outage_s: float | None = None
        self._wall_s = 0.0

    async def burst(self) -> None:
        """All requests at once, and the kill among them."""
        begin_s = time.monotonic()
        events, each = await self._operator.events(), self.configuration.requests // len(TARIFFS)
        self._budgets = [await Budget.make(self._operator, tariff, each, events) for tariff in TARIFFS]
        async with AsyncExitStack() as stack:
            for budget in self._budgets:
                await stack.enter_async_context(budget.sampled())
            asking = asyncio.gather(*(budget.ask_all() for budget in self._budgets))
            if self.configuration.kill is not Kill.NOTHING:
                canary = await stack.enter_async_context(singing(self._canary))
                await until(lambda: asking.done() or self._has_begun(), "the burst has begun", _BURST_S)
                self._outage_s = await kill_and_recover(self._operator.mesh, canary, self._victim)
            await asking
        self._wall_s += time.monotonic() - begin_s

    async def finish(self) -> None:
        """Ends the doubt, if there is any, and has refused requests ask again."""
        begin_s = time.monotonic()
        await asyncio.gather(*(self._finish(budget) for budget in self._budgets))
        self._wall_s += time.monotonic() - begin_s

    async def until_given_back(self) -> None:
        """Waits until routers have given back what they do not use, which takes them half a minute."""
        for budget in self._budgets:
            await budget.until_nothing_is_leased(_DOUBT_OVER_S)
            await budget.until_settled(_SETTLED_S)

    async def _finish(self, budget: Budget) -> None:
        async with budget.sampled():
            if self.configuration.kill is not Kill.NOTHING:
                await budget.until_nothing_is_leased(_DOUBT_OVER_S)
            if self.configuration.kill.is_of_the_door:
                budget.excess = (await budget.status()).spent - budget.used
            await budget.until_settled(_SETTLED_S)
            await budget.ask_again()

    def _has_begun(self) -> bool:
        begun = sum(budget.begun for budget in self._budgets)
        return begun > self.configuration.requests // _BEGUN_DIVISOR

    async def row(self) -> Row:
        """What it came to."""
        budgets = self._budgets
        ends = [outcome for budget in budgets for outcome in budget.last]
        firsts = [outcome for budget in budgets for outcome in budget.first]
        statuses = [await budget.status() for budget in budgets]
        spent = sum(status.spent for status in statuses)
        doubt = sum(status.written_off for status in statuses) + sum(budget.charged_by_bound() for budget in budgets)
        return Row(
            configuration=self.configuration,
            served=ends.count(Outcome.WHOLE) + ends.count(Outcome.LEFT),
            broken=ends.count(Outcome.BROKEN),
            wrong=ends.count(Outcome.WRONG),
            unavailable_first=firsts.count(Outcome.UNAVAILABLE),
            refused_first=firsts.count(Outcome.REFUSED),
            refused=ends.count(Outcome.REFUSED),
            false_refusals=sum(
                _false_refusals(budget, status.spent) for budget, status in zip(budgets, statuses, strict=True)
            ),
            ledger_excess=max(budget.peak - budget.cap for budget in budgets),
            use_excess=max(budget.used - budget.cap for budget in budgets),
            drift=spent - sum(budget.used for budget in budgets),
            drift_max=doubt if self.configuration.kill.is_of_the_door else 0,
            leased=sum(status.allotted for status in statuses),
            outage_s=self._outage_s,
            wall_s=self._wall_s,
        )


def _false_refusals(budget: Budget, spent: int) -> int:
    """How many requests were refused in the end that fitted in what was left then."""
    room = max(0, budget.cap - spent) // budget.tariff.need_nanousd
    return min(room, budget.last.count(Outcome.REFUSED))
