"""Finds a decision for a request: leases what is missing, counts exactly, makes do with less, or waits.

Each step begins only where the one before left a refusal that it may lift. The last thing that every step does is to
ask the core, and nothing is awaited after that, so what was decided on still stands when it is held.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from enginehouse.router import (
    Decision,
    Headroom,
    Load,
    Moment,
    Need,
    Policy,
    Replica,
    Request,
    Residency,
    TightBudget,
    View,
    decide,
    worth_counting,
)
from enginehouse.services.router.affinity import Affinity
from enginehouse.services.router.lease_groups import Exhausted
from enginehouse.services.router.prompt import NO_PROMPT, Prompt
from enginehouse.services.router.waiting import WaitingRoom
from enginehouse.v1 import common_pb2, inference_pb2

_LEASES_MAX = 50
_POLICIES_MAX = 4096
_ASK_AGAIN_S = 0.2
_COUNTABLE_RULES = frozenset({"rate_limit", "budget", "price_maximum"})
_WITH_PREFIX = frozenset({common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION})


class Counts(Protocol):
    """Counts prompts; see `TokenCounter.count`."""

    async def count(
        self,
        question: inference_pb2.CountTokensRequest,
        request: Request,
        replicas: tuple[Replica, ...],
        residency: tuple[Residency, ...],
    ) -> tuple[tuple[str, int], ...]:
        """The prompt's tokens by deployment."""
        ...


class Leases(Protocol):
    """What may be held, and how to come by more; see `Allowances`."""

    def headroom(self, limit: str) -> int:
        """What can be held of `limit` now."""
        ...

    async def acquire(self, needs: Sequence[Need]) -> Exhausted | None:
        """Leases at least `needs`, or says of which limit the ledger has too little left."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One decision, and all that it was made of: the core gives the same one for it again.

    Attributes:
        blocks: hashes of the prompt's first blocks.
    """

    request: Request
    view: View
    policy: Policy
    moment: Moment
    decision: Decision
    blocks: tuple[bytes, ...] = ()

    @property
    def needs(self) -> tuple[Need, ...]:
        """What limits would have had to hold. Empty when they are not why it was refused, or when it was not."""
        return self.decision.refused.needs if self.decision.refused is not None else ()


class Deliberation:
    """Decides on the newest view.

    Args:
        allowances: what may be held.
        in_flight: this router's requests on each replica, by replica id; it changes in place.
        loads: what the nodes last reported, by replica id; it changes in place.
        affinity: which replica has read which prompts.
        counter: counts prompts exactly.
        room: where requests wait.
        wait_ms_max: longest that anybody waits, counted from when the request came; whoever asks has a deadline.
        now_ms: a clock that never jumps, in milliseconds.
    """

    def __init__(
        self,
        *,
        allowances: Leases,
        in_flight: Mapping[str, int],
        loads: Mapping[str, Load],
        affinity: Affinity,
        counter: Counts,
        room: WaitingRoom,
        wait_ms_max: int,
        now_ms: Callable[[], int],
    ) -> None:
        self.view = View()
        self._allowances = allowances
        self._in_flight = in_flight
        self._loads = loads
        self._affinity = affinity
        self._counter = counter
        self._room = room
        self._wait_ms_max = wait_ms_max
        self._now_ms = now_ms

    async def decide(self, request: Request, prompt: Prompt = NO_PROMPT) -> Asked:
        """What becomes of the request now.

        Raises:
            DependencyError: the allowance is used up and control does not answer.
        """
        asked = await self._lease(self._begin(request, prompt))
        counts = await self._counts(asked, prompt)
        if counts:
            request = replace(asked.request, prompt_tokens=counts)
            asked = await self._lease(self._ask(request, asked.blocks, self._allowances.headroom))
        return asked

    async def decide_in_turn(self, request: Request, prompt: Prompt = NO_PROMPT) -> Asked:
        """The same, except that a request whose policy lets it wait does so: behind those that came before it.

        Raises:
            DependencyError: as `decide`.
        """
        came_ms = self._now_ms()
        asked = await self.decide(request, prompt)
        if asked.policy.on_tight_budget is not TightBudget.WAIT:
            return asked
        limit = next((need.limit for need in _short(asked.needs)), None)
        limit = limit or self._room.waited_for(asked.decision.holds)
        return asked if limit is None else await self._wait(asked, limit, came_ms)

    def admitted(self, asked: Asked) -> None:
        """Notes that the first replica of a decision is going to read the prompt."""
        if asked.blocks:
            self._affinity.remember(asked.decision.attempts[0].id, asked.blocks)

    def _begin(self, request: Request, prompt: Prompt) -> Asked:
        blocks: tuple[bytes, ...] = ()
        if prompt.beginning and request.operation in _WITH_PREFIX:
            owner = f"{request.principal.tenant_name}/{request.model}"
            blocks = self._affinity.blocks(owner, prompt.beginning)
            request = replace(request, prefix_blocks=len(blocks))
        return self._ask(request, blocks, self._allowances.headroom)

    def _ask(self, request: Request, blocks: tuple[bytes, ...], headroom: Headroom) -> Asked:
        view = self.view
        policy = view.policy(request.principal, request.model)
        moment = Moment(headroom, self._in_flight, self._loads, self._affinity.matches(blocks) if blocks else {})
        return Asked(request, view, policy, moment, decide(request, view, policy, moment), blocks)

    def _again(self, asked: Asked, exhausted: Mapping[str, Exhausted] | None = None) -> Asked:
        """Asks once more: on this router's share, and on what the ledger has left of exhausted limits besides."""
        headroom = self._allowances.headroom
        return self._ask(asked.request, asked.blocks, _with_ledger(headroom, exhausted) if exhausted else headroom)

    async def _lease(self, asked: Asked) -> Asked:
        """Leases until the request fits in full, or else as much as the ledger has for it."""
        exhausted: dict[str, Exhausted] = {}
        for _ in range(_LEASES_MAX):
            missing = self._missing(asked, exhausted)
            if not missing:
                break
            shortage = await self._allowances.acquire(missing)
            if shortage is not None:
                exhausted[shortage.limit] = shortage
            else:
                self._room.changed(need.limit for need in missing)
                for need in missing:
                    _take(exhausted, need)
            asked = self._again(asked, exhausted)
        if asked.decision.refused is None:
            return self._again(asked) if exhausted else asked
        return _with_retry(asked, exhausted)

    def _missing(self, asked: Asked, exhausted: Mapping[str, Exhausted]) -> list[Need]:
        """What is worth leasing: what the whole request lacks, or else what the decision holds beyond the own share."""
        wanted = [need for need in _short(_needs_in_full(asked)) if need.limit not in exhausted]
        if wanted or asked.decision.refused is not None:
            return wanted
        headroom = self._allowances.headroom
        return _short(Need(limit, amount, headroom(limit)) for limit, amount in asked.decision.holds.items())

    async def _counts(self, asked: Asked, prompt: Prompt) -> tuple[tuple[str, int], ...]:
        """Exact counts, where the request is refused or cut short and a smaller prompt could change that."""
        decision = asked.decision
        is_too_large = decision.refused is not None and decision.refused.rule in _COUNTABLE_RULES
        if not is_too_large and not decision.is_clamped:
            return ()
        replicas = worth_counting(asked.request, asked.view, asked.policy, asked.moment)
        question = prompt.to_count() if replicas else None
        if question is None:
            return ()
        return await self._counter.count(question, asked.request, replicas, decision.residency)

    async def _wait(self, asked: Asked, limit: str, came_ms: int) -> Asked:
        until_ms = min(self._now_ms() + asked.policy.wait_ms, came_ms + self._wait_ms_max)
        with self._room.place(limit) as place:
            if place is None:
                return asked
            while (left_s := (until_ms - self._now_ms()) / 1000) > 0:
                # Others give back to the ledger too, and it tells nobody: the first in line asks it now and then.
                await place.turn(min(left_s, _ASK_AGAIN_S) if place.is_first else left_s)
                if place.is_first:
                    asked = await self._lease_until(asked, until_ms)
                    if not asked.needs:
                        return asked
        # Time is over: what fits now does, and otherwise the ledger's last word stands.
        last = self._again(asked)
        return last if last.decision.refused is None or asked.decision.refused is None else asked

    async def _lease_until(self, asked: Asked, until_ms: int) -> Asked:
        """Asks again and leases. What is missing when time is over is missing."""
        again = self._again(asked)
        try:
            async with asyncio.timeout(max(0, until_ms - self._now_ms()) / 1000):
                return await self._lease(again)
        except TimeoutError:
            # Not the one from before the wait: nothing may be held on it.
            return self._again(asked) if asked.decision.refused is None else asked


def _short(needs: Iterable[Need]) -> list[Need]:
    return [need for need in needs if need.amount > need.headroom]


def _needs_in_full(asked: Asked) -> tuple[Need, ...]:
    """What the request would need if nothing of its output were cut off."""
    if not asked.decision.is_clamped:
        return asked.needs
    refused = decide(asked.request, asked.view, _unclamped(asked.policy), asked.moment).refused
    return refused.needs if refused is not None else ()


@lru_cache(_POLICIES_MAX)
def _unclamped(policy: Policy) -> Policy:
    return replace(policy, on_tight_budget=None)


def _take(exhausted: dict[str, Exhausted], need: Need) -> None:
    known = exhausted.get(need.limit)
    if known is not None:
        exhausted[need.limit] = replace(known, left=max(0, known.left - (need.amount - need.headroom)))


def _with_ledger(headroom: Headroom, exhausted: Mapping[str, Exhausted]) -> Headroom:
    """What is left in all: this router's share and what the ledger could still give, for a refusal that is true."""
    left = {limit: one.left for limit, one in exhausted.items()}
    return lambda limit: headroom(limit) + left.get(limit, 0)


def _with_retry(asked: Asked, exhausted: Mapping[str, Exhausted]) -> Asked:
    refused = asked.decision.refused
    waits = [
        one.retry_after_s
        for need in _short(asked.needs)
        if (one := exhausted.get(need.limit)) is not None and one.retry_after_s is not None
    ]
    if refused is None or not waits:
        return asked
    return replace(asked, decision=replace(asked.decision, refused=replace(refused, retry_after_s=max(waits))))
