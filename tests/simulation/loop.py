"""An event loop on virtual time, and the processes that run on it: they can be killed and stopped at any step."""

import asyncio
import heapq
import random
from asyncio import events
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeAlias, TypeVar, cast

from typing_extensions import TypeVarTuple, Unpack, override

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_RESOLUTION_S = 1e-6

Argument: TypeAlias = Any
"""Whatever asyncio passes on."""
_PROCESS: "ContextVar[Process | None]" = ContextVar("process", default=None)


class Process:
    """A simulated process: everything that runs in its context.

    Killed, none of its callbacks ever runs again: no `finally`, no goodbye. Stopped, they wait; its timers are then
    late, as they are for a process that gets SIGSTOP and SIGCONT.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_stopped = False
        self.stopped_at_s = 0.0
        self.slept_s = 0.0
        self.backlog: list[events.Handle] = []
        self.context: Context = copy_context()
        self.context.run(_PROCESS.set, self)

    @property
    def is_running(self) -> bool:
        """Whether it is neither dead nor stopped."""
        return not self.is_dead and not self.is_stopped


class _Handle(asyncio.Handle):
    """A callback that asks its process first."""

    __slots__ = ()

    @override
    def _run(self) -> None:
        if _may_run(self):
            super()._run()


class _TimerHandle(asyncio.TimerHandle):
    """A callback at a time that asks its process first."""

    __slots__ = ()

    @override
    def _run(self) -> None:
        if _may_run(self):
            super()._run()


def _may_run(handle: events.Handle) -> bool:
    process: Process | None = handle._context.get(_PROCESS)  # type: ignore[attr-defined]
    if process is None:
        return True
    if process.is_dead:
        return False
    if process.is_stopped:
        process.backlog.append(handle)
        return False
    return True


class _Task(asyncio.Task[Argument]):
    """A task with the same hash in every run, so that sets of tasks have the same order."""

    def __init__(self, *args: Argument, number: int, **options: Argument) -> None:
        self._number = number
        super().__init__(*args, **options)

    @override
    def __hash__(self) -> int:
        return self._number

    @override
    def __eq__(self, other: object) -> bool:
        return self is other


class Deadlock(Exception):
    """Nothing is scheduled any more and the simulation has not ended."""


class _Selector:
    """No files to wait for: waiting is moving the clock."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Argument]:
        """Moves the clock by `timeout` seconds."""
        if timeout is None:
            raise Deadlock("the loop waits for ever")
        self._loop.now_s += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio without threads, files and real time.

    Args:
        after_turn: called after each turn of the loop.
        died: is told when a part of a process failed, which ends the process; returns whether that was expected.
    """

    def __init__(self, after_turn: Callable[[], None], died: "Callable[[Process, BaseException], bool]") -> None:
        super().__init__()
        self._died = died
        self.now_s = 0.0
        self.failures: list[str] = []
        self._after_turn = after_turn
        self._tasks = 0
        self._every_task: list[_Task] = []
        self._selector = _Selector(self)
        self._clock_resolution = _RESOLUTION_S
        self.set_task_factory(cast("Any", self._make_task))
        self.set_exception_handler(self._failed)

    @override
    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self.now_s

    def run(self, work: Coroutine[Argument, Argument, _T]) -> _T:
        """Runs until `work` ends, and leaves nothing behind."""
        previous = events._get_running_loop()
        try:
            return self.run_until_complete(work)
        finally:
            self.set_exception_handler(lambda _loop, _context: None)
            self._ready.clear()  # type: ignore[attr-defined]
            self._scheduled.clear()  # type: ignore[attr-defined]
            for task in self._every_task:
                _forget(task)
            self.close()
            events._set_running_loop(previous)

    def stop_process(self, process: Process) -> None:
        """Stops a process in the middle of whatever it does."""
        process.is_stopped = True
        process.stopped_at_s = self.now_s

    def resume(self, process: Process) -> None:
        """Lets a stopped process go on, with all that waited for it."""
        process.is_stopped = False
        process.slept_s += self.now_s - process.stopped_at_s
        waiting, process.backlog = process.backlog, []
        self._ready.extend(waiting)  # type: ignore[attr-defined]

    def start(self, process: Process, work: Coroutine[Argument, Argument, _T], name: str = "") -> "asyncio.Task[_T]":
        """Runs `work` in the process."""
        return self.create_task(work, name=name or process.name, context=process.context)

    @override
    def call_at(
        self, when: float, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; the handle asks its process."""
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def _call_soon(
        self, callback: Callable[..., object], args: tuple[Argument, ...], context: Context | None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        self._after_turn()

    def _check_closed(self) -> None:
        """What is collected after the end may still say goodbye to a loop that runs no more."""

    def _process_events(self, event_list: list[Argument]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""

    def _make_task(
        self, _loop: asyncio.AbstractEventLoop, work: Coroutine[Argument, Argument, Argument], **options: Argument
    ) -> "asyncio.Task[Argument]":
        self._tasks += 1
        task = _Task(work, loop=self, number=self._tasks, **options)
        self._every_task.append(task)
        return task

    def _failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Argument]) -> None:
        error, process = context.get("exception"), _PROCESS.get()
        if error is not None and process is not None and self._died(process, error):
            return
        self.failures.append(f"{context.get('message')}: {error!r}")


def _forget(task: _Task) -> None:
    if task.done():
        return
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    with suppress(BaseException):  # whatever it does on its way out, the world is over
        cast("Coroutine[Argument, Argument, Argument]", task.get_coro()).close()


def exponential_s(rng: random.Random, mean_s: float) -> float:
    """A random time with that mean."""
    return rng.expovariate(1 / mean_s)
