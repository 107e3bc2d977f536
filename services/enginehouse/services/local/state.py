"""The state folder of a mesh on one machine, and the lock that keeps a second mesh out of it."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from enginehouse.contract import DependencyError
from enginehouse.services.settings import FILE_NAME

_LOCK = "lock"
_PROCESSES = "processes.json"


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
    def settings_file(self) -> Path:
        """The settings with every port chosen, as the processes read them."""
        return self.run / FILE_NAME

    @property
    def admin_key_file(self) -> Path:
        """Where control leaves the first admin key for the one who started it; taken from there once."""
        return self.run / "admin-key"

    def note_processes(self, processes: Mapping[str, int | None]) -> None:
        """Writes the process ids of the members down, for commands that look for them."""
        self.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self.run / f"{_PROCESSES}.new"
        temporary.write_text(json.dumps(processes))
        temporary.replace(self.run / _PROCESSES)

    def processes(self) -> dict[str, int]:
        """The process ids of the members that run, by name, as they were noted last."""
        try:
            noted = json.loads((self.run / _PROCESSES).read_text())
        except (OSError, ValueError):
            return {}
        return {name: pid for name, pid in noted.items() if isinstance(pid, int)}

    @property
    def is_in_use(self) -> bool:
        """Whether a process holds the lock."""
        try:
            with (self.path / _LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @property
    def control_socket(self) -> Path:
        """The admin API for whoever may read this folder."""
        return self.path / "control.sock"
