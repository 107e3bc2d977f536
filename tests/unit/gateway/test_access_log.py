"""Envoy's access log on disk: numbering, rotation, reading and deleting."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.services.gateway.access_log import AccessLogFolder, AccessLogReader


class Writer:
    """Appends to the current file, and follows a rotation only when it is told to, as Envoy does."""

    def __init__(self, folder: AccessLogFolder, start: str = "a") -> None:
        self._path = folder.current_path(start)
        self._file = self._path.open("ab", buffering=0)
        self.lines = 0

    def write(self, count: int) -> None:
        """Appends lines that carry their number."""
        for _ in range(count):
            self._file.write(b"%d\n" % self.lines)
            self.lines += 1

    def reopen(self) -> None:
        """Opens the path anew."""
        self._file.close()
        self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


def read_all(reader: AccessLogReader) -> list[str]:
    lines: list[str] = []
    while more := reader.read(lines_max=3, bytes_max=1000):
        lines += more
    return lines


def numbers(count: int, first: int = 0) -> list[str]:
    return [str(number) for number in range(first, count)]


@given(
    steps=st.lists(st.sampled_from(["write", "rotate", "reopen", "read", "seek"]), max_size=40),
    seek_share=st.floats(0, 1),
)
def test_every_line_is_read_once_and_in_order_whatever_happens_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], seek_share: float
) -> None:
    folder = AccessLogFolder(tmp_path_factory.mktemp("log"))
    writer, reader = Writer(folder), AccessLogReader(folder, "a")
    read: list[str] = []
    for step in steps:
        if step == "write":
            writer.write(2)
        elif step == "rotate":
            read += read_all(reader)
            folder.rotate("a", reader.segment_first_line)
        elif step == "reopen":
            writer.reopen()
        elif step == "read":
            read += reader.read(lines_max=1, bytes_max=1000)
        else:
            line = int(seek_share * len(read))
            reader.seek(line)
            del read[line:]
            assert reader.next_line == line
    writer.reopen()
    read += read_all(reader)
    reader.close()
    writer.close()
    assert read == numbers(writer.lines)
    assert reader.next_line == writer.lines


def test_rotated_files_are_numbered_by_their_first_line(tmp_path: Path) -> None:
    folder = AccessLogFolder(tmp_path)
    writer, reader = Writer(folder), AccessLogReader(folder, "a")
    for count in (3, 4):
        writer.write(count)
        read_all(reader)
        folder.rotate("a", reader.segment_first_line)
        writer.reopen()
    writer.close()
    reader.close()
    assert [segment.path.name for segment in folder.segments("a")] == [
        "a.000000000000.jsonl",
        "a.000000000003.jsonl",
        "a.jsonl",
    ]


def test_lines_written_between_renaming_and_reopening_are_read(tmp_path: Path) -> None:
    folder = AccessLogFolder(tmp_path)
    writer, reader = Writer(folder), AccessLogReader(folder, "a")
    writer.write(2)
    assert read_all(reader) == numbers(2)
    folder.rotate("a", 0)
    writer.write(1)
    folder.rotate("a", 0)  # again, because Envoy did not answer
    writer.reopen()
    writer.write(1)
    folder.rotate("a", 0)  # and once more, late: nothing is overwritten
    assert read_all(reader) == ["2", "3"]
    writer.close()
    reader.close()


@pytest.mark.parametrize("line", range(8))
def test_reading_goes_on_at_any_line_of_any_file(tmp_path: Path, line: int) -> None:
    folder = AccessLogFolder(tmp_path)
    writer, reader = Writer(folder), AccessLogReader(folder, "a")
    for _ in range(3):
        writer.write(2)
        read_all(reader)
        folder.rotate("a", reader.segment_first_line)
        writer.reopen()
    writer.write(1)
    writer.close()

    reader.seek(line)

    assert reader.next_line == min(line, 7)
    assert read_all(reader) == numbers(7, line)
    reader.close()


def test_seeking_before_what_is_left_gives_the_first_line_that_is(tmp_path: Path) -> None:
    (tmp_path / "a.000000000005.jsonl").write_text("5\n")
    reader = AccessLogReader(AccessLogFolder(tmp_path), "a")
    reader.seek(2)
    assert (reader.next_line, read_all(reader)) == (5, ["5"])
    reader.close()


def test_bytes_that_are_no_utf8_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xff\n")
    reader = AccessLogReader(AccessLogFolder(tmp_path), "a")
    assert read_all(reader) == ["\N{REPLACEMENT CHARACTER}"]
    reader.close()


def test_only_starts_that_control_may_lack_are_unshipped_oldest_first(tmp_path: Path) -> None:
    folder = AccessLogFolder(tmp_path)
    for start in ("gateway-3", "gateway-1", "gateway-2"):
        folder.current_path(start).touch()
    folder.mark_shipped("gateway-2")
    (tmp_path / "notes.txt").touch()
    assert folder.unshipped() == ["gateway-1", "gateway-3"]


def test_file_of_a_start_that_wrote_nothing_is_discarded_and_others_are_kept(tmp_path: Path) -> None:
    folder = AccessLogFolder(tmp_path)
    folder.current_path("a").touch()
    folder.current_path("b").write_text("{}\n")
    for start in ("a", "b", "c"):
        folder.discard_empty(start)
    assert folder.unshipped() == ["b"]


def test_pruning_keeps_what_control_lacks(tmp_path: Path) -> None:
    folder = AccessLogFolder(tmp_path)
    for first_line in (0, 10, 20):
        (tmp_path / f"live.{first_line:012d}.jsonl").touch()
    folder.current_path("live").touch()
    folder.current_path("old").touch()

    folder.prune("live", acknowledged_line=15, kept=1)

    assert [segment.first_line for segment in folder.segments("live")] == [10, 20, None]
    assert folder.unshipped() == ["live", "old"]


def test_pruning_keeps_a_rotated_file_to_number_the_lines_after_it(tmp_path: Path) -> None:
    folder = AccessLogFolder(tmp_path)
    for first_line in (0, 10, 20):
        (tmp_path / f"live.{first_line:012d}.jsonl").touch()
    folder.current_path("live").touch()
    folder.prune("live", acknowledged_line=1000, kept=1)
    assert [segment.first_line for segment in folder.segments("live")] == [20, None]
