"""Envoy's access log on disk: one series of files per start of Envoy.

``<start>.jsonl`` is what Envoy appends to. Rotated, it becomes ``<start>.<number of its first line>.jsonl``. Two empty
files say how far a start has come: ``<start>.complete`` after an orderly end, ``<start>.shipped`` once control has all.
"""

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_NAME = re.compile(r"(?P<start>[A-Za-z0-9-]+)(?:\.(?P<first_line>\d{12}))?\.jsonl")


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a start's log.

    Args:
        path: where it is.
        first_line: number of its first line. None: the file that Envoy appends to; it begins where the last one ends.
    """

    path: Path
    first_line: int | None


class AccessLogFolder:
    """The access logs of one gateway, of this run and of earlier ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def current_path(self, start: str) -> Path:
        """The file that the Envoy of `start` appends to."""
        return self._path / f"{start}.jsonl"

    def segments(self, start: str) -> list[Segment]:
        """The files of `start`, in order."""
        return self._by_start().get(start, [])

    def unshipped(self) -> list[str]:
        """Starts of which control may lack something, oldest first."""
        return [start for start in self._by_start() if not self._marker(start, "shipped").exists()]

    def is_complete(self, start: str) -> bool:
        """Whether the Envoy of `start` ended in order: all that it saw is in its log."""
        return self._marker(start, "complete").exists()

    def mark_complete(self, start: str) -> None:
        """Records an orderly end."""
        self._marker(start, "complete").touch()

    def mark_shipped(self, start: str) -> None:
        """Records that control has all of `start`."""
        self._marker(start, "shipped").touch()

    def discard_empty(self, start: str) -> None:
        """Forgets a start whose Envoy never came to write anything."""
        current = self.current_path(start)
        if current.exists() and current.stat().st_size == 0:
            current.unlink()

    def rotate(self, start: str, first_line: int) -> None:
        """Renames the file that Envoy appends to; Envoy must then be told to open it anew."""
        current, rotated = self.current_path(start), self._path / f"{start}.{first_line:012d}.jsonl"
        if current.exists() and not rotated.exists():
            current.rename(rotated)

    def prune(self, live: str | None, acknowledged_line: int, kept: int) -> None:
        """Deletes what control has, but for the newest `kept` files of shipped starts and as many of the live one.

        Args:
            live: the start that is running, if one is.
            acknowledged_line: control has every line of `live` before this one.
            kept: at least 1, for the name of a rotated file is what numbers the lines after it.
        """
        shipped: list[Path] = []
        for start, segments in self._by_start().items():
            if start == live:
                rotated = [(segment.first_line, segment.path) for segment in segments if segment.first_line is not None]
                ends = [first_line for first_line, _ in rotated[1:]]
                done = [path for (_, path), end in zip(rotated, ends, strict=False) if end <= acknowledged_line]
                for path in done[: max(0, len(rotated) - kept)]:
                    path.unlink()
            elif self._marker(start, "shipped").exists():
                shipped += [segment.path for segment in segments]
        for path in shipped[: max(0, len(shipped) - kept)]:
            path.unlink()
        self._forget_deleted_starts()

    def _forget_deleted_starts(self) -> None:
        known = self._by_start()
        for marker in [*self._path.glob("*.complete"), *self._path.glob("*.shipped")]:
            if marker.stem not in known:
                marker.unlink()

    def _marker(self, start: str, state: str) -> Path:
        return self._path / f"{start}.{state}"

    def _by_start(self) -> dict[str, list[Segment]]:
        found: dict[str, list[Segment]] = {}
        for path in sorted(self._path.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match:
                number = match["first_line"]
                segment = Segment(path, None if number is None else int(number))
                found.setdefault(match["start"], []).append(segment)
        for segments in found.values():
            segments.sort(key=lambda segment: (segment.first_line is None, segment.first_line or 0))
        return found


class AccessLogReader:
    """Reads the complete lines of one start's log in order, across its files, while Envoy goes on writing.

    It holds the file that it reads open, because that file's name changes when the log is rotated.
    """

    def __init__(self, folder: AccessLogFolder, start: str) -> None:
        self._folder = folder
        self._start = start
        self._file: BinaryIO | None = None
        self._offset = 0
        self._first_line = 0
        self.next_line = 0

    @property
    def segment_first_line(self) -> int:
        """Number of the first line of the file that is being read."""
        return self._first_line

    @property
    def segment_bytes(self) -> int:
        """How much of the file that is being read has been read."""
        return self._offset

    def seek(self, line: int) -> None:
        """Makes `line` the next one; the nearest that is on disk, if it is not."""
        self.close()
        segments = self._folder.segments(self._start)
        if not segments:
            self.next_line = line
            return
        earlier = [segment for segment in segments if segment.first_line is not None and segment.first_line <= line]
        self.next_line = 0
        self._open(earlier[-1] if earlier else segments[0])
        while self.next_line < line and self.read(lines_max=min(1000, line - self.next_line), bytes_max=1024 * 1024):
            pass

    def read(self, *, lines_max: int, bytes_max: int) -> list[str]:
        """The next complete lines, without their ends; empty when there are none yet.

        Args:
            lines_max: how many at most.
            bytes_max: reading ends with the line that passes this.
        """
        while True:
            successor = self._successor()  # looked up first: once it exists, the file before it is not written any more
            lines = list(self._lines(lines_max, bytes_max))
            self.next_line += len(lines)
            if lines or successor is None:
                return lines
            self._open(successor)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lines(self, lines_max: int, bytes_max: int) -> Iterator[str]:
        if self._file is None:
            return
        begin = self._offset
        self._file.seek(begin)
        for _ in range(lines_max):
            line = self._file.readline()
            if not line.endswith(b"\n"):
                return
            self._offset += len(line)
            yield line[:-1].decode(errors="replace")
            if self._offset - begin >= bytes_max:
                return

    def _open(self, segment: Segment) -> None:
        self.close()
        self._file = segment.path.open("rb")
        self._offset = 0
        if segment.first_line is not None:
            self.next_line = segment.first_line
        self._first_line = self.next_line

    def _successor(self) -> Segment | None:
        segments = self._folder.segments(self._start)
        if self._file is None:
            return segments[0] if segments else None
        opened = os.fstat(self._file.fileno())
        for segment, successor in itertools.pairwise(segments):
            if os.path.samestat(segment.path.stat(), opened):
                return successor
        return None
