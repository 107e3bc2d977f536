"""The folder of one node: nobody else's while the node runs."""

import fcntl
from pathlib import Path

from enginehouse.contract import DependencyError

_FILE = "node.lock"


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
