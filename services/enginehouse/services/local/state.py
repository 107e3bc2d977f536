"""The state folder of a mesh on one machine, and the lock that keeps a second mesh out of it."""

import fcntl
import os
from pathlib import Path
from typing import IO

from enginehouse.contract import DependencyError

_LOCK = "lock"


class StateFolder:
    """Where a mesh keeps everything: ledger, event stream, logs. Only its owner may look inside.

    The lock is the kernel's and ends with the process that holds it, however that ends: there is no stale lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: IO[str] | None = None

    def acquire(self) -> None:
        """Makes the folder and takes the lock.

        Raises:
            DependencyError: another mesh runs in it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self.path / _LOCK).open("a+")
        except OSError as error:
            raise DependencyError(f"state folder {self.path}: {error.strerror}; name another with --state") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise DependencyError(
                f"a mesh runs in the state folder {self.path} already (process {owner}); "
                "stop it with Ctrl-C there, or name another folder with --state"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Gives the lock up."""
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    @property
    def logs(self) -> Path:
        """Where each process's output is."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """Where things are that are only true while the mesh runs: the settings with every port chosen."""
        return self.path / "run"

    @property
    def control_socket(self) -> Path:
        """The admin API for whoever may read this folder."""
        return self.path / "control.sock"
