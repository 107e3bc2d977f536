"""What supervision needs of an engine that runs, wherever it runs."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from enginehouse.engines.descriptor import EngineDescriptor, EngineSpec
from enginehouse.engines.failure import Ending
from enginehouse.engines.process import OutputLog


class RunningEngine(Protocol):
    """One run of an engine."""

    @property
    def address(self) -> str:
        """host:port of its HTTP server."""
        ...

    async def listening(self) -> None:
        """Returns once something accepts connections at `address`."""
        ...

    async def wait(self) -> Ending:
        """Returns once the engine has ended, with how."""
        ...

    async def stop(self, *, grace_s: float, number: signal.Signals = signal.SIGTERM) -> int | None:
        """Ends it: the signal, `grace_s` seconds, SIGKILL to its group. Returns the exit code, if it has one."""
        ...


@dataclass(frozen=True, slots=True)
class EngineUse:
    """What a running engine takes of its host.

    Args:
        memory_bytes: of the host's memory, by all of its processes.
        accelerator_memory_bytes: of its accelerators, by everybody. 0: not known.
        accelerator_utilization: share of the time in which they worked, 0 to 1. None: not known.
    """

    memory_bytes: int
    accelerator_memory_bytes: int = 0
    accelerator_utilization: float | None = None


@runtime_checkable
class MeasuredEngine(Protocol):
    """An engine whose processes are ours to measure. One that is attached is not."""

    def progress(self) -> int:
        """Differs while it fills its memory. Quick enough for the event loop."""
        ...

    async def use(self) -> EngineUse | None:
        """What it takes now. None: it has ended."""
        ...


class Launcher(Protocol):
    """Starts the engine of one replica, again and again."""

    async def launch(
        self, spec: EngineSpec, descriptor: EngineDescriptor, model: Path | None, output: OutputLog
    ) -> RunningEngine:
        """Starts it once.

        Args:
            spec: the replica.
            descriptor: its kind of engine.
            model: the model's file, if the kind wants one.
            output: takes what the engine writes.

        Raises:
            RequestError: the settings can never work.
            EngineError: it cannot be started.
        """
        ...

    def close(self) -> None:
        """Gives back what it holds between runs."""
        ...
