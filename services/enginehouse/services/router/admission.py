"""Admits requests: decides, leases what is missing, holds, and writes the decision down."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from google.protobuf.message import Message

from enginehouse.router import Decision, Request, View, decide
from enginehouse.router.limits import Held
from enginehouse.router.question import Headroom
from enginehouse.router.record import decision_to_message, ticket
from enginehouse.services.router.allowances import Allowances, Exhausted
from enginehouse.services.router.settlement import Settler
from enginehouse.v1 import events_pb2, router_pb2

_ROUNDS_MAX = 50
_WATCHER_QUEUE_MAX = 1000


class Publish(Protocol):
    """Queues an event; see `EventPublisher.publish`."""

    def __call__(self, kind: str, subject_id: str, what: str, payload: Message) -> None:
        """Queues one event and returns at once."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request. `ticket` is None when it was refused."""

    decision: Decision
    message: router_pb2.Decision
    ticket: router_pb2.Ticket | None


class Admission:
    """Decides on the newest view, and holds.

    Args:
        router: this router's id.
        address: host:port where nodes report to it.
        allowances: where holds are made.
        settler: is told what was admitted.
        publish: takes decisions as events.
        now_ms: Unix time in milliseconds.
    """

    def __init__(
        self,
        *,
        router: str,
        address: str,
        allowances: Allowances,
        settler: Settler,
        publish: Publish,
        now_ms: Callable[[], int],
    ) -> None:
        self.view = View()
        self._router = router
        self._address = address
        self._allowances = allowances
        self._settler = settler
        self._publish = publish
        self._now_ms = now_ms
        self._watchers: set[asyncio.Queue[router_pb2.Decision]] = set()

    async def admit(self, request: Request) -> Outcome:
        """Decides, and if it is not refused holds. The caller sees to it that it is settled.

        Raises:
            DependencyError: the allowance is used up and control does not answer.
        """
        self._settler.release(request.id)  # asked again: the answer to the first question was never used
        decision, view = await self._decide(request)
        # Nothing is awaited between the decision and the hold, so what was decided on still stands.
        held = self._allowances.hold(request.id, decision.holds) if decision.refused is None else ()
        outcome = self._outcome(request, decision, view, held)
        if outcome.ticket is not None:
            self._settler.admit(outcome.ticket)
        self._announce(outcome)
        return outcome

    async def explain(self, request: Request) -> router_pb2.Decision:
        """The same decision on the same snapshot, holding nothing."""
        decision, view = await self._decide(request)
        return self._outcome(request, decision, view, ()).message

    async def watch(self) -> AsyncIterator[router_pb2.Decision]:
        """Each decision as it is made. A watcher that falls 1000 behind loses the oldest."""
        queue: asyncio.Queue[router_pb2.Decision] = asyncio.Queue(_WATCHER_QUEUE_MAX)
        self._watchers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)

    async def _decide(self, request: Request) -> tuple[Decision, View]:
        decision, view = self._decide_once(request, self._allowances.headroom)
        for _ in range(_ROUNDS_MAX):
            if decision.refused is None or not decision.refused.needs:
                break
            exhausted = await self._allowances.acquire(decision.refused.needs)
            if exhausted is not None:
                decision, view = self._decide_once(request, _with_ledger(self._allowances.headroom, exhausted))
                if decision.refused is not None:
                    return _with_retry(decision, exhausted), view
            decision, view = self._decide_once(request, self._allowances.headroom)
        return decision, view

    def _decide_once(self, request: Request, headroom: Headroom) -> tuple[Decision, View]:
        view = self.view
        return decide(request, view, view.policy(request.principal), headroom, self._settler.in_flight), view

    def _outcome(self, request: Request, decision: Decision, view: View, held: tuple[Held, ...]) -> Outcome:
        message = decision_to_message(
            decision,
            decision_id=str(uuid.uuid4()),
            request=request,
            view=view,
            held=held,
            decided_at_ms=self._now_ms(),
        )
        if decision.refused is not None:
            return Outcome(decision, message, None)
        made = ticket(message, router=self._router, fence=self._allowances.fence, router_address=self._address)
        return Outcome(decision, message, made)

    def _announce(self, outcome: Outcome) -> None:
        message, request = outcome.message, outcome.message.request
        event = events_pb2.RequestDecided(
            request_id=request.request_id,
            decision_id=message.id,
            router=self._router,
            principal=request.principal,
            operation=request.operation,
            dialect=request.dialect,
            model=request.model,
            lane=message.lane,
            replicas=[attempt.replica for attempt in message.attempts],
            hold_nanousd=outcome.decision.bounds.cost_nanousd,
            refusal=message.refusal if message.HasField("refusal") else None,
        )
        self._publish("request", request.request_id, "decided", event)
        for queue in self._watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(message)


def _with_ledger(headroom: Headroom, exhausted: Exhausted) -> Headroom:
    """What is left in all: this router's share and what the ledger could still give, for a refusal that is true."""

    def left(limit: str) -> int:
        return headroom(limit) + (exhausted.left if limit == exhausted.limit else 0)

    return left


def _with_retry(decision: Decision, exhausted: Exhausted) -> Decision:
    if decision.refused is None or exhausted.retry_after_s is None:
        return decision
    return replace(decision, refused=replace(decision.refused, retry_after_s=exhausted.retry_after_s))
