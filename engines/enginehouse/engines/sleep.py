"""Sleep: an engine that gives up its accelerators' memory and keeps its process, and is back sooner than by a start."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from enginehouse.contract import EngineError, Reason

# The kinds of ours that can, for messages.
SLEEPING_ENGINES = ("vllm",)
_CALL_S = 300.0
"""For one call. Weights that were thrown away are read again within it."""


@dataclass(frozen=True, slots=True)
class ControlCall:
    """A POST to an engine. `body` is JSON; without one nothing is sent."""

    path: str
    body: str = ""


@dataclass(frozen=True, slots=True)
class SleepLevel:
    """How deep an engine sleeps.

    Args:
        gives_up: what it lets go of, for people.
        sleep: the calls that put it to sleep.
        wake: the calls that wake it.
    """

    gives_up: str
    sleep: tuple[ControlCall, ...]
    wake: tuple[ControlCall, ...]


@dataclass(frozen=True, slots=True)
class SleepMode:
    """The levels that an engine has, by their number. 1 is the lightest."""

    levels: Mapping[int, SleepLevel] = field(default_factory=dict)


class EngineControls(Protocol):
    """Tells an engine what to do."""

    async def call(self, address: str, call: ControlCall) -> None:
        """Makes a call to the engine at host:port. Raises EngineError when it does not do what it is told."""
        ...


class HttpControls:
    """Calls over HTTP."""

    async def call(self, address: str, call: ControlCall) -> None:
        """Makes a call.

        Raises:
            EngineError: the engine is not there, refuses, or takes too long.
        """
        headers = {"Content-Type": "application/json"} if call.body else {}
        timeout = aiohttp.ClientTimeout(total=_CALL_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.post(f"http://{address}{call.path}", data=call.body or None, headers=headers) as answer,
            ):
                if answer.status != 200:
                    raise EngineError(f"POST {call.path} answered {answer.status}", Reason.ENGINE_FAILED)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineError(f"POST {call.path} failed: {type(error).__name__}", Reason.ENGINE_FAILED) from error


@dataclass(slots=True)
class Nap:
    """One sleep of one replica, from the wish to its end.

    Attributes:
        level: how deep, with its number.
        until_s: the monotonic time until which requests may end before it falls asleep.
        asleep: done once it sleeps; failed if it does not come to that.
        wake: set when it is to wake up.
    """

    number: int
    level: SleepLevel
    until_s: float
    asleep: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def fell_asleep(self) -> None:
        """Says that it sleeps."""
        if not self.asleep.done():
            self.asleep.set_result(None)

    def failed(self, error: EngineError) -> None:
        """Says that it does not come to that."""
        if not self.asleep.done():
            self.asleep.set_exception(error)
            self.asleep.exception()  # looked at: the one who wished may have left
