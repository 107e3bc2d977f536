"""Why an engine ended: from its exit code, and from what the kernel says about memory."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class FailureClass(StrEnum):
    """What ended an engine, as events carry it."""

    CRASH = "crash"
    """A signal ended it that we did not send."""
    EXIT = "exit"
    """It ended by itself, with whatever code."""
    OUT_OF_MEMORY = "out_of_memory"
    """The kernel killed it for memory."""
    START_TIMEOUT = "start_timeout"
    """It did not open its port, or generate a token, in time."""
    START_FAILED = "start_failed"
    """It could not be executed at all."""
    HUNG = "hung"
    """It ran and stayed degraded for too long."""
    MODEL_UNAVAILABLE = "model_unavailable"
    """Its model could not be fetched."""
    CONFIGURATION = "configuration"
    """Its settings can never work; starting again is of no use."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How one run of an engine ended.

    Args:
        failure_class: None when it was asked to end.
        reason: for people.
        exit_code: negative for a signal. None when there was no process.
    """

    failure_class: FailureClass | None
    reason: str
    exit_code: int | None = None


def kernel_memory_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed for memory so far: on the host, and in our own cgroup.

    Sources: `oom_kill` of /proc/vmstat (Linux 4.13), `oom_kill` of memory.events (cgroup v2) and of memory.oom_control
    (cgroup v1). What cannot be read counts as none, so without evidence nothing is called out of memory.
    """
    files = (
        root / "proc/vmstat",
        root / "sys/fs/cgroup/memory.events",
        root / "sys/fs/cgroup/memory/memory.oom_control",
    )
    return sum(_counter(path, "oom_kill") for path in files)


class DeathDiagnosis:
    """Tells how a process ended, against the kernel's count of memory kills when it was started."""

    def __init__(self, count_memory_kills: Callable[[], int] = kernel_memory_kills) -> None:
        self._count = count_memory_kills
        self._at_start = count_memory_kills()

    def ending(self, exit_code: int) -> Ending:
        """What `exit_code` means. A SIGKILL that is not ours counts as out of memory if the kernel killed anyone."""
        if exit_code >= 0:
            return Ending(FailureClass.EXIT, f"the engine ended with exit code {exit_code}", exit_code)
        name = _signal_name(-exit_code)
        if exit_code == -signal.SIGKILL and self._count() > self._at_start:
            return Ending(FailureClass.OUT_OF_MEMORY, f"the kernel killed the engine for memory ({name})", exit_code)
        return Ending(FailureClass.CRASH, f"{name} ended the engine", exit_code)


def _counter(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    fields = (line.split() for line in lines)
    return sum(int(field[1]) for field in fields if len(field) == 2 and field[0] == name and field[1].isdigit())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
