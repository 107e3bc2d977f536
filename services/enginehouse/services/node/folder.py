"""The folder of one node: nobody else's while the node runs."""

import fcntl
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from enginehouse.contract import DependencyError

_FILE = "node.lock"
_LOGS_KEPT = 20


def prune_logs(folder: Path, running: Collection[str], kept_max: int = _LOGS_KEPT) -> None:
    """Deletes the oldest outputs of engines that have ended; every replacement leaves one behind.

    Args:
        running: ids of the replicas whose output is not touched.
        kept_max: how many of the others stay.
    """
    ended: list[tuple[float, Path]] = []
    for log in folder.glob("*.log"):
        with suppress(FileNotFoundError):
            if log.stem not in running:
                ended.append((log.stat().st_mtime, log))
    for _, log in sorted(ended, reverse=True)[kept_max:]:
        log.unlink(missing_ok=True)
        log.with_name(f"{log.name}.1").unlink(missing_ok=True)


class FolderLock:
    """Keeps other nodes out of a folder. The kernel lets go when this process dies, however it dies.

    Raises:
        DependencyError: another node works in it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / _FILE).open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise DependencyError(
                f"another node works in {folder}; stop it, or give this one another name or state folder"
            ) from error

    def release(self) -> None:
        """Lets others in."""
        self._file.close()
