"""One request inside an emulated engine: its wait, its prompt, its tokens, and what may break it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from enginehouse.engines.emulators.core.batch import Batch
from enginehouse.engines.emulators.core.counts import Counts
from enginehouse.engines.emulators.core.errors import BrokenBy, ConnectionCut, GenerationBroken
from enginehouse.engines.emulators.core.faults import SLOW_FACTOR, SLOW_STEP_S, Fault, FaultKind
from enginehouse.engines.emulators.core.plan import Finish, Plan, Token


@dataclass(frozen=True, slots=True)
class Work:
    """What one request asks for.

    Attributes:
        id: by which it can be aborted.
        prompt_tokens: of all its prompts.
        plans: one for each choice.
        tokens_max: what it allows each choice.
    """

    id: str
    prompt_tokens: int
    plans: tuple[Plan, ...]
    tokens_max: int


@dataclass(frozen=True, slots=True)
class Step:
    """One token of one choice, with the finish if it is the choice's last. `is_garbage`: a fault spoils its frame."""

    choice: int
    token: Token
    finish: Finish | None
    is_garbage: bool = False


@dataclass(slots=True)
class Times:
    """Moments of a request, in seconds of the event loop's clock; 0.0 until they come."""

    received_s: float
    started_s: float = 0.0
    first_token_s: float = 0.0
    ended_s: float = 0.0

    @property
    def queue_s(self) -> float:
        """How long it waited for a place."""
        return max(0.0, self.started_s - self.received_s)

    @property
    def prefill_s(self) -> float:
        """From its place to its first token."""
        return max(0.0, self.first_token_s - self.started_s)

    @property
    def decode_s(self) -> float:
        """From its first token to its last."""
        return max(0.0, self.ended_s - self.first_token_s)

    @property
    def inference_s(self) -> float:
        """From its place to its end."""
        return max(0.0, self.ended_s - self.started_s)

    @property
    def total_s(self) -> float:
        """From its arrival to its end."""
        return max(0.0, self.ended_s - self.received_s)


@dataclass(eq=False)
class Generation:
    """One request at work. Iterate `steps` once; `abort` breaks it from outside, wherever it is.

    Attributes:
        generated: tokens handed out so far, of each choice.
    """

    work: Work
    times: Times
    fault: Fault | None
    generated: list[int] = field(init=False)
    _interrupt: "asyncio.Future[None]" = field(init=False)
    _is_stalled: bool = False

    def __post_init__(self) -> None:
        self.generated = [0] * len(self.work.plans)
        self._interrupt = asyncio.get_running_loop().create_future()

    @property
    def generated_tokens(self) -> int:
        """Tokens handed out so far, of all choices."""
        return sum(self.generated)

    def abort(self, cause: BrokenBy) -> None:
        """Breaks it: what waits for it gets GenerationBroken."""
        if not self._interrupt.done():
            self._interrupt.set_exception(GenerationBroken(cause))
            self._interrupt.exception()  # looked at: nobody may be waiting for it

    def stall(self) -> None:
        """Lets no further token come."""
        self._is_stalled = True

    async def wait_for(self, place: "asyncio.Future[Any]") -> None:
        """Returns once the future is done, which gives a place, for example.

        Raises:
            GenerationBroken: it was aborted before that.
        """
        await asyncio.wait({place, self._interrupt}, return_when=asyncio.FIRST_COMPLETED)
        if self._interrupt.done():
            await self._interrupt

    async def pass_gate(self, gate: asyncio.Event) -> None:
        """Returns once the gate is open.

        Raises:
            GenerationBroken: it was aborted before that.
        """
        if gate.is_set():
            return
        opened = asyncio.ensure_future(gate.wait())
        try:
            await self.wait_for(opened)
        finally:
            opened.cancel()

    async def steps(self, batch: Batch, counts: Counts) -> AsyncIterator[Step]:
        """The tokens of all choices side by side, at the engine's pace, each counted before it is handed out.

        A fault that is due after more tokens than there are never comes.

        Raises:
            GenerationBroken: aborted, or a fault says so.
            ConnectionCut: a fault says so.
        """
        clock = asyncio.get_running_loop().time
        await batch.prefill(self.work.prompt_tokens, self._pause)
        counts.prompt_tokens += self.work.prompt_tokens
        counts.step_tokens.observe(self.work.prompt_tokens)
        previous_s = clock()
        for position in range(max(len(plan.tokens) for plan in self.work.plans)):
            await self._pause(self._step_s(batch))
            counts.decode_steps += 1
            counts.step_tokens.observe(sum(position < len(plan.tokens) for plan in self.work.plans))
            for choice, plan in enumerate(self.work.plans):
                if position >= len(plan.tokens):
                    continue
                is_garbage = await self._strike()
                now_s = clock()
                if self.times.first_token_s == 0.0:
                    self.times.first_token_s = now_s
                    counts.first_token_s.observe(now_s - self.times.received_s)
                else:
                    counts.next_token_s.observe(now_s - previous_s)
                previous_s = now_s
                self.generated[choice] += 1
                counts.generated_tokens += 1
                finish = plan.finish if position == len(plan.tokens) - 1 else None
                yield Step(choice, plan.tokens[position], finish, is_garbage)

    def _step_s(self, batch: Batch) -> float:
        step_s = batch.step_s()
        if self.fault is not None and self.fault.kind is FaultKind.SLOW:
            return max(SLOW_STEP_S, step_s * SLOW_FACTOR)
        return step_s

    async def _pause(self, pause_s: float) -> None:
        """Sleeps, unless it is aborted meanwhile."""
        if self._is_stalled:
            await asyncio.shield(self._interrupt)
        if pause_s <= 0:
            await asyncio.sleep(0)
        else:
            await asyncio.wait({self._interrupt}, timeout=pause_s)
        if self._interrupt.done():
            await self._interrupt

    async def _strike(self) -> bool:
        """Lets a fault that is due happen; True if it spoils the frame."""
        fault = self.fault
        if fault is None or self.generated_tokens < fault.after_tokens:
            return False
        if fault.kind is FaultKind.DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind is FaultKind.CUT:
            raise ConnectionCut
        if fault.kind is FaultKind.ERROR_FRAME:
            raise GenerationBroken(BrokenBy.FAULT)
        if fault.kind is FaultKind.HANG:
            await asyncio.shield(self._interrupt)
        return fault.kind is FaultKind.GARBAGE and self.generated_tokens == fault.after_tokens
