"""One process of a mesh on one machine: started, watched, started again when it dies, stopped."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import structlog

from enginehouse.contract import DependencyError
from enginehouse.engines.process import ManagedProcess, OutputLog

_log = structlog.get_logger(__name__)
_BACKOFF_FIRST_S = 0.2
_BACKOFF_MAX_S = 10.0
_STABLE_S = 30.0
_READY_POLL_S = 0.05
_LAST_LINES = 15


class MemberState(Enum):
    """What a member is doing, in words for the status screen."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """How a member is run.

    Attributes:
        name: unique in the mesh, for example "router-0".
        command: program and arguments.
        is_ready: whether it serves; asked again and again until it says so.
        stop_grace_s: how long it may take to end after SIGTERM.
        start_s: how long it may take until it is ready.
    """

    name: str
    command: Sequence[str]
    is_ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] | None = None
    stop_grace_s: float = 5.0
    start_s: float = 60.0


class Member:
    """A process that is kept alive until it is stopped.

    Args:
        spec: how it is run.
        folder: where its output goes, as "<name>.log".
        on_change: called after every change of state.
    """

    def __init__(self, spec: MemberSpec, folder: Path, on_change: Callable[[], None]) -> None:
        self.spec = spec
        self.output = OutputLog(folder / f"{spec.name}.log")
        self.state = MemberState.STOPPED
        self.restarts = 0
        self.last_exit: int | None = None
        self._on_change = on_change
        self._process: ManagedProcess | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._process.pid if self._process is not None and self._process.exit_code is None else None

    async def start(self) -> None:
        """Starts the process, waits until it is ready, and keeps it alive from then on.

        Raises:
            DependencyError: it ended or was not ready in time; the message has its last lines.
        """
        self._set(MemberState.STARTING)
        process = await self._spawn()
        try:
            async with asyncio.timeout(self.spec.start_s):
                await self._until_ready(process)
        except TimeoutError:
            await process.stop(grace_s=0)
            raise DependencyError(self._failure(f"was not ready within {self.spec.start_s:g} s")) from None
        if self.state is not MemberState.READY:
            raise DependencyError(self._failure(f"ended with {describe_exit(process.exit_code)}"))
        self._keeping = asyncio.create_task(self._keep(process), name=f"keep {self.spec.name}")

    async def stop(self) -> None:
        """Asks it to end, and kills its group after the grace."""
        self._set(MemberState.STOPPING)
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._process is not None:
            await self._process.stop(grace_s=self.spec.stop_grace_s)
        self.output.close()
        self._set(MemberState.STOPPED)

    def kill(self) -> None:
        """SIGKILL to its group, now, and for good. Nothing is awaited."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._process is not None:
            self._process.kill_group()

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, as an operator or a test would."""
        if self._process is not None:
            self._process.send_signal(number)

    async def _spawn(self) -> ManagedProcess:
        self._process = await ManagedProcess.start(
            self.spec.command, output=self.output, environment=self.spec.environment
        )
        return self._process

    async def _keep(self, process: ManagedProcess) -> None:
        backoff_s = _BACKOFF_FIRST_S
        while True:
            started = time.monotonic()
            self.last_exit = await process.wait()
            process.kill_group()  # whatever it left behind
            if time.monotonic() - started >= _STABLE_S:
                backoff_s = _BACKOFF_FIRST_S
            self.restarts += 1
            self._set(MemberState.RESTARTING)
            ended = describe_exit(self.last_exit)
            _log.warning("process ended; starting it again", process=self.spec.name, ended=ended, wait_s=backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
            process = await self._spawn()
            await self._until_ready(process)

    async def _until_ready(self, process: ManagedProcess) -> None:
        while process.exit_code is None:
            if await self.spec.is_ready():
                self._set(MemberState.READY)
                return
            await asyncio.sleep(_READY_POLL_S)

    def _set(self, state: MemberState) -> None:
        self.state = state
        self._on_change()

    def _failure(self, what: str) -> str:
        lines = "\n".join(f"  {line}" for line in self.output.lines(_LAST_LINES))
        return f"{self.spec.name} {what}; its last lines (all of them are in {self.output.path}):\n{lines}"


def describe_exit(code: int | None) -> str:
    """An exit code in words: "exit code 3", "SIGKILL"."""
    if code is None:
        return "no exit code"
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
