"""How the echo engine works on requests: gate, slots, pace, counts and faults."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from enginehouse.engines.echo._faults import FaultBody, Faults, strike, strike_after, strike_before
from enginehouse.engines.echo._gate import Gate
from enginehouse.engines.echo._generation import FinishReason, Generation
from enginehouse.engines.echo._settings import EchoSettings
from enginehouse.engines.serving import Metric, Slots

_GATE_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One token of one choice."""

    index: int
    piece: str


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    """The end of one choice."""

    index: int
    finish_reason: FinishReason


class Worker:
    """The engine proper. Its counters are what /metrics shows."""

    def __init__(self, settings: EchoSettings) -> None:
        self.gate = Gate()
        self.faults = Faults()
        self._slots = Slots(settings.parallel, settings.waiting_max)
        self._pause_s = 1.0 / settings.tokens_per_second if settings.tokens_per_second > 0 else 0.0
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._steps = 0

    @asynccontextmanager
    async def admitted(self, request: web.Request, prompt_tokens: int) -> AsyncIterator[FaultBody | None]:
        """A slot for one request, with the fault that is to hit it.

        Raises:
            ApiError: too many wait, or a fault says so.
        """
        fault = self.faults.take()
        await strike_before(fault, request)
        if self.gate.is_closed:
            async with self._slots.wait():
                await self.gate.pass_through()
        async with self._slots.slot():
            self._prompt_tokens += prompt_tokens
            self._steps += 1
            yield fault

    async def tokens(
        self, generations: Sequence[Generation], fault: FaultBody | None
    ) -> AsyncIterator[GeneratedToken | ChoiceEnd]:
        """The tokens of all choices side by side, at the engine's pace, each counted before it is handed out.

        Raises:
            EngineFaultError: a fault says so.
        """
        done = 0
        for step in range(max(len(generation.pieces) for generation in generations)):
            await asyncio.sleep(self._pause_s)
            for index, generation in enumerate(generations):
                if step < len(generation.pieces):
                    await strike_after(fault, done)
                    done += 1
                    self._generated_tokens += 1
                    self._steps += 1
                    yield GeneratedToken(index, generation.pieces[step])
        await strike(fault)  # one that was due after more tokens than there are
        for index, generation in enumerate(generations):
            yield ChoiceEnd(index, generation.finish_reason)

    async def keep_stepping(self) -> None:
        """Counts steps while the gate is closed: the engine is held back on purpose then, and not hung."""
        while True:
            await asyncio.sleep(_GATE_STEP_S)
            if self.gate.is_closed:
                self._steps += 1

    def metrics(self) -> list[Metric]:
        """What it does and what it did."""
        slots = self._slots
        return [
            Metric("echo:requests_running", "gauge", "Requests that generate.", slots.running),
            Metric("echo:requests_waiting", "gauge", "Requests that wait for a slot or at the gate.", slots.waiting),
            Metric("echo:prompt_tokens_total", "counter", "Prompt tokens taken.", self._prompt_tokens),
            Metric("echo:generation_tokens_total", "counter", "Tokens generated.", self._generated_tokens),
            Metric("echo:steps_total", "counter", "Steps of work. It grows while the engine is alive.", self._steps),
        ]
