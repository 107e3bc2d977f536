"""Admits requests: finds a decision, holds, and writes the decision down."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from enginehouse.contract import DependencyError
from enginehouse.router import Decision, Request, Verdict, View, verdicts
from enginehouse.router.limits import Held
from enginehouse.router.record import decision_to_message, ticket
from enginehouse.services.router.allowances import Allowances
from enginehouse.services.router.deliberation import Asked, Deliberation
from enginehouse.services.router.prompt import NO_PROMPT, Prompt
from enginehouse.services.router.recorder import Recorder
from enginehouse.services.router.settlement import Settler
from enginehouse.v1 import events_pb2, router_pb2

_WATCHER_QUEUE_MAX = 1000


class Publish(Protocol):
    """Queues an event; see `EventPublisher.publish`."""

    def __call__(self, kind: str, subject_id: str, what: str, payload: Message) -> None:
        """Queues one event and returns at once."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request. `ticket` is None when it was refused. `asked` is all that it was decided on."""

    asked: Asked
    message: router_pb2.Decision
    ticket: router_pb2.Ticket | None

    @property
    def decision(self) -> Decision:
        """The core's."""
        return self.asked.decision


class Admission:
    """Decides on the newest view, and holds.

    Args:
        router: this router's id.
        address: host:port where nodes report to it.
        deliberation: finds decisions.
        allowances: where holds are made.
        settler: is told what was admitted.
        recorder: writes decisions down so that they can be made again.
        publish: takes decisions as events.
        now_ms: Unix time in milliseconds.
    """

    def __init__(
        self,
        *,
        router: str,
        address: str,
        deliberation: Deliberation,
        allowances: Allowances,
        settler: Settler,
        recorder: Recorder,
        publish: Publish,
        now_ms: Callable[[], int],
    ) -> None:
        self._router = router
        self._address = address
        self._deliberation = deliberation
        self._allowances = allowances
        self._settler = settler
        self._recorder = recorder
        self._publish = publish
        self._now_ms = now_ms
        self._watchers: set[asyncio.Queue[router_pb2.Decision]] = set()

    @property
    def view(self) -> View:
        """What is decided on now."""
        return self._deliberation.view

    async def admit(self, request: Request, prompt: Prompt = NO_PROMPT) -> Outcome:
        """Decides, and if it is not refused holds. The caller sees to it that it is settled.

        Args:
            request: what is asked.
            prompt: its text, where the caller has it.

        Raises:
            DependencyError: the allowance is used up and control does not answer, or the request holds already.
        """
        asked = await self._deliberation.decide_in_turn(request, prompt)
        if self._settler.is_admitted(request.id):
            # Asked twice, and nobody can tell which answer is used: what the first one holds may be running.
            raise DependencyError(f"request {request.id} was admitted already; ask again under another id")
        # Nothing is awaited between the decision and the hold, so what was decided on still stands.
        decision, decision_id = asked.decision, str(uuid.uuid4())
        self._recorder.decided(decision_id, asked.request, asked.view, asked.moment, decision)
        held = self._allowances.hold(request.id, decision.holds) if decision.refused is None else ()
        outcome = self._outcome(asked, decision_id, held)
        if outcome.ticket is not None:
            self._settler.admit(outcome.ticket)
            self._deliberation.admitted(asked)
        self._announce(outcome)
        return outcome

    async def explain(self, request: Request) -> router_pb2.Decision:
        """The same decision on the same snapshot, told in full and holding nothing. It waits for nobody."""
        asked = await self._deliberation.decide(request)
        told = verdicts(asked.request, asked.view, asked.policy, asked.moment)
        return self._outcome(asked, str(uuid.uuid4()), verdicts=told).message

    async def watch(self) -> AsyncIterator[router_pb2.Decision]:
        """Each decision as it is made. A watcher that falls 1000 behind loses the oldest."""
        queue: asyncio.Queue[router_pb2.Decision] = asyncio.Queue(_WATCHER_QUEUE_MAX)
        self._watchers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)

    def _outcome(
        self, asked: Asked, decision_id: str, held: Sequence[Held] = (), verdicts: Sequence[Verdict] = ()
    ) -> Outcome:
        message = decision_to_message(
            asked.decision,
            decision_id=decision_id,
            request=asked.request,
            view=asked.view,
            held=held,
            verdicts=verdicts,
            decided_at_ms=self._now_ms(),
        )
        if asked.decision.refused is not None:
            return Outcome(asked, message, None)
        made = ticket(message, router=self._router, fence=self._allowances.fence, router_address=self._address)
        return Outcome(asked, message, made)

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
