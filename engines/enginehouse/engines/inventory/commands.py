"""The vendors' command-line tools, asked once and not for long."""

import shutil
import subprocess
from collections.abc import Sequence
from typing import Protocol

_TIMEOUT_S = 20.0  # a first call wakes up drivers, on a host of eight GPUs one after the other


class RunCommand(Protocol):
    """Runs a program to its end."""

    def __call__(self, command: Sequence[str]) -> str | None:
        """What it wrote to standard output. None: there is no such program, or it failed. It may block for seconds."""
        ...


def run_command(command: Sequence[str]) -> str | None:
    """Runs a program of this host and returns its standard output; None when it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
