"""Faults on demand for tests: the next requests go wrong in a chosen way."""

import asyncio
import os
import signal
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from enginehouse.engines.serving import ApiError

PLANNED_MAX = 16


class FaultKind(StrEnum):
    """What goes wrong."""

    DIE = "die"
    """The process kills itself."""
    ERROR_FRAME = "error_frame"
    """A stream carries an error frame and then [DONE], under status 200, as vLLM's does; a unary answer is a 500."""
    HANG = "hang"
    """Nothing more comes, until the client leaves."""
    UNAVAILABLE = "unavailable"
    """503, before anything is done."""
    REFUSE = "refuse"
    """The connection is reset without an answer."""


class FaultBody(BaseModel):
    """POST /faults.

    `after_tokens` are sent first, for the kinds that can go wrong in the middle; `requests` is how many are hit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: FaultKind
    after_tokens: Annotated[int, Field(ge=0)] = 0
    requests: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class EngineFaultError(ApiError):
    """The generation broke down, on demand."""

    def __init__(self) -> None:
        super().__init__("the generation broke down, on demand", HTTPStatus.INTERNAL_SERVER_ERROR, code="engine_fault")


@dataclass(slots=True)
class _Planned:
    fault: FaultBody
    left: int


class Faults:
    """What is planned, first in, first out."""

    def __init__(self) -> None:
        self._planned: deque[_Planned] = deque()

    def plan(self, fault: FaultBody) -> None:
        """Adds a fault.

        Raises:
            ApiError: too many are planned.
        """
        if len(self._planned) >= PLANNED_MAX:
            raise ApiError(f"{PLANNED_MAX} faults are planned already; DELETE /faults first", HTTPStatus.CONFLICT)
        self._planned.append(_Planned(fault, fault.requests))

    def clear(self) -> None:
        """Forgets them all."""
        self._planned.clear()

    def take(self) -> FaultBody | None:
        """The fault that hits the present request, if one does."""
        if not self._planned:
            return None
        planned = self._planned[0]
        planned.left -= 1
        if planned.left == 0:
            self._planned.popleft()
        return planned.fault


async def strike_before(fault: FaultBody | None, request: web.Request) -> None:
    """Lets a fault happen that comes before any work."""
    if fault is None:
        return
    if fault.kind is FaultKind.UNAVAILABLE:
        raise ApiError("unavailable, on demand", HTTPStatus.SERVICE_UNAVAILABLE, code="unavailable")
    if fault.kind is FaultKind.REFUSE:
        if request.transport is not None:
            request.transport.abort()
        await asyncio.Event().wait()


async def strike_after(fault: FaultBody | None, tokens: int) -> None:
    """Lets a fault happen that is due once `tokens` were generated."""
    if fault is not None and tokens >= fault.after_tokens:
        await strike(fault)


async def strike(fault: FaultBody | None) -> None:
    """Lets a fault happen now, if it is of a kind that comes during the work."""
    if fault is None:
        return
    if fault.kind is FaultKind.DIE:
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.kind is FaultKind.ERROR_FRAME:
        raise EngineFaultError
    if fault.kind is FaultKind.HANG:
        await asyncio.Event().wait()
