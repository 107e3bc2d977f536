"""Faults on demand: the next requests go wrong in a chosen way."""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from enginehouse.contract import RequestError

PLANNED_MAX = 16


class FaultKind(StrEnum):
    """What goes wrong."""

    REFUSE = "refuse"
    """The connection is reset without an answer."""
    UNAVAILABLE = "unavailable"
    """The engine's own words for being too busy, before anything is done."""
    HANG = "hang"
    """Nothing more comes, until the client leaves. Health and metrics go on answering."""
    DIE = "die"
    """The process kills itself."""
    CUT = "cut"
    """The connection is reset in the middle; the engine lives on."""
    ERROR_FRAME = "error_frame"
    """The generation breaks down: the engine's own error frame in a stream, its own error status otherwise."""
    SLOW = "slow"
    """Every token takes `SLOW_FACTOR` times as long, and at least `SLOW_STEP_S`."""
    GARBAGE = "garbage"
    """A frame that is no JSON in a stream, a body that is no JSON otherwise."""


SLOW_FACTOR = 10.0
SLOW_STEP_S = 0.2


class Fault(BaseModel):
    """One fault, on the command line or as the body of POST /emulator/faults.

    `after_tokens` are generated first, for the kinds that can go wrong in the middle; `requests` is how many are hit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: FaultKind
    after_tokens: Annotated[int, Field(ge=0)] = 0
    requests: Annotated[int, Field(ge=1, le=1_000_000)] = 1


def parse_fault(text: str) -> Fault:
    """The fault written as KIND[:AFTER_TOKENS[:REQUESTS]].

    Raises:
        RequestError: it is not of that form.
    """
    kind, *numbers = text.split(":")
    known = [fault.value for fault in FaultKind]
    if kind not in known or len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
        raise RequestError(
            f"not a fault: {text!r}; write KIND[:AFTER_TOKENS[:REQUESTS]] with a kind of {', '.join(known)}"
        )
    members = dict(zip(("after_tokens", "requests"), map(int, numbers), strict=False))
    return Fault(kind=FaultKind(kind), **members)


@dataclass(slots=True)
class _Planned:
    fault: Fault
    left: int


class Faults:
    """What is planned, first in, first out."""

    def __init__(self, planned: tuple[Fault, ...] = ()) -> None:
        self._planned: deque[_Planned] = deque(_Planned(fault, fault.requests) for fault in planned)

    def plan(self, fault: Fault) -> bool:
        """Adds a fault; False if `PLANNED_MAX` are planned already."""
        if len(self._planned) >= PLANNED_MAX:
            return False
        self._planned.append(_Planned(fault, fault.requests))
        return True

    def clear(self) -> None:
        """Forgets them all."""
        self._planned.clear()

    def take(self) -> Fault | None:
        """The fault that hits the present request, if one does."""
        if not self._planned:
            return None
        planned = self._planned[0]
        planned.left -= 1
        if planned.left == 0:
            self._planned.popleft()
        return planned.fault
