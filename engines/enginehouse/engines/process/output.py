"""What a child process writes: drained without pause, kept in memory for a look and on disk for later."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

LINE_BYTES_MAX = 8192
FOLLOWER_LINES_MAX = 1000


class OutputLog:
    """The last lines of a process in a ring, and all of them in a file that is rotated once it is full.

    Args:
        path: the file; its predecessor is `path` with ``.1`` appended.
        lines_max: lines kept in memory.
        bytes_max: size at which the file is rotated.

    Attributes:
        written_bytes: in all, rotated away or not.
    """

    def __init__(self, path: Path, *, lines_max: int = 1000, bytes_max: int = 16 * 1024 * 1024) -> None:
        self.path = path
        self._ring: deque[str] = deque(maxlen=lines_max)
        self._bytes_max = bytes_max
        self.written_bytes = 0
        self._followers: set[asyncio.Queue[str]] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")

    def lines(self, count: int) -> list[str]:
        """The last `count` lines, oldest first."""
        return list(self._ring)[-count:]

    async def follow(self) -> AsyncIterator[str]:
        """Each new line. A follower that falls 1000 lines behind loses the oldest."""
        queue: asyncio.Queue[str] = asyncio.Queue(FOLLOWER_LINES_MAX)
        self._followers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._followers.discard(queue)

    async def drain(self, stream: asyncio.StreamReader) -> None:
        """Reads `stream` to its end, so that the child never blocks on a full pipe."""
        pending = b""
        while chunk := await stream.read(65536):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self.write(line)
            if len(pending) > LINE_BYTES_MAX:
                self.write(pending)
                pending = b""
            self._file.flush()  # once a chunk: a flood of short lines must not cost a system call each
        if pending:
            self.write(pending)
        self._file.flush()

    def write(self, line: bytes) -> None:
        """Appends one line, without its line end. `drain` brings it to the file."""
        text = line[:LINE_BYTES_MAX].decode(errors="replace").rstrip("\r")
        self._ring.append(text)
        for queue in self._followers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(text)
        self.written_bytes += len(line) + 1
        self._file.write(line + b"\n")
        if self._file.tell() > self._bytes_max:
            self._rotate()

    def close(self) -> None:
        """Closes the file; the lines in memory stay readable."""
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        self.path.replace(self.path.with_name(self.path.name + ".1"))
        self._file = self.path.open("ab")
