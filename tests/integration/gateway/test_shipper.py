"""The shipper with real files and a real gRPC server in control's place; only Envoy is played by the test."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from enginehouse.contract import DependencyError, EnginehouseError
from enginehouse.services.gateway.access_log import AccessLogFolder
from enginehouse.services.gateway.admin import AccessLogCounters
from enginehouse.services.gateway.shipper import AccessLogShipper, ShipperSettings
from enginehouse.services.server import channel
from enginehouse.v1 import ledger_pb2_grpc
from tests.integration.gateway.stub_control import StubControl
from tests.support.waiting import until, until_async

SETTINGS = ShipperSettings(poll_s=0.01, report_s=0.0, backoff_s_max=0.05, segment_bytes=1000, segments_kept=2)


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """The time of day."""
        return self.time

    def monotonic(self) -> float:
        """Seconds since 1970."""
        return self.time.timestamp()

    def advance(self, seconds: float) -> datetime:
        """Goes on, and returns the new time."""
        self.time += timedelta(seconds=seconds)
        return self.time


class Envoy:
    """Writes an access log as Envoy does."""

    def __init__(self, folder: AccessLogFolder, start: str) -> None:
        self.start = start
        self.emitted = 0
        self.buffered_bytes = 0
        self._path = folder.current_path(start)
        self._file = self._path.open("ab", buffering=0)

    def write(self, *lines: str) -> None:
        """Emits lines, which reach the file."""
        self.emitted += len(lines)
        self.write_raw("".join(line + "\n" for line in lines).encode())

    def write_raw(self, data: bytes) -> None:
        """Bytes that reach the file."""
        self._file.write(data)

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    async def access_log_counters(self) -> AccessLogCounters:
        """What Envoy's admin server says."""
        return AccessLogCounters(emitted_lines=self.emitted, buffered_bytes=self.buffered_bytes)

    async def reopen_logs(self) -> None:
        """Opens the file anew."""
        self._file.close()
        self._file = self._path.open("ab", buffering=0)


class Bench:
    """A shipper and what it works on."""

    def __init__(self, path: Path, control: StubControl, ledger: "ledger_pb2_grpc.LedgerServiceAsyncStub") -> None:
        self.path = path
        self.control = control
        self.clock = Clock()
        self.folder = AccessLogFolder(path)
        self.ledger = ledger
        self.envoys: list[Envoy] = []
        self.shipper = self.new_shipper()

    def new_shipper(self, settings: ShipperSettings = SETTINGS) -> AccessLogShipper:
        """As after a restart of the gateway."""
        self.shipper = AccessLogShipper(
            self.folder, self.ledger, settings, now=self.clock.now, monotonic=self.clock.monotonic
        )
        return self.shipper

    def start(self, start: str) -> Envoy:
        """An Envoy that runs and is followed."""
        self.shipper.expect(start)
        envoy = Envoy(self.folder, start)
        self.envoys.append(envoy)
        self.shipper.follow(start, envoy)
        return envoy

    def end(self, envoy: Envoy, *, in_order: bool) -> None:
        """The Envoy is gone."""
        envoy.close()
        if in_order:
            self.folder.mark_complete(envoy.start)
        self.shipper.unfollow()


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with StubControl() as control, channel(str(control.address)) as to_control:
        bench = Bench(tmp_path, control, ledger_pb2_grpc.LedgerServiceStub(to_control))
        yield bench
        bench.shipper.unfollow()
        with suppress(EnginehouseError):
            await bench.shipper.ship()
        for envoy in bench.envoys:
            envoy.close()


def numbered(numbers: Iterable[int]) -> list[str]:
    return [f'{{"n":{number},"filler":"{"x" * 50}"}}' for number in numbers]


async def test_live_log_is_shipped_as_it_grows(bench: Bench) -> None:
    envoy = bench.start("a")
    for number in range(3):
        envoy.write(*numbered([number]))
        await bench.shipper.ship()
        assert bench.control.lines["a"] == numbered(range(number + 1))


async def test_half_a_line_waits_for_its_other_half(bench: Bench) -> None:
    envoy = bench.start("a")
    envoy.write_raw(b'{"n":')
    await bench.shipper.ship()
    assert bench.control.lines["a"] == []
    envoy.write_raw(b"1}\n")
    await bench.shipper.ship()
    assert bench.control.lines["a"] == ['{"n":1}']


async def test_large_backlog_goes_in_bounded_batches(bench: Bench) -> None:
    envoy = bench.start("a")
    bench.new_shipper(ShipperSettings(report_s=0.0))
    bench.shipper.expect("a")
    bench.shipper.follow("a", envoy)
    long = ["x" * 300_000] * 12
    envoy.write(*numbered(range(1200)), *long)
    await bench.shipper.ship()
    assert bench.control.lines["a"] == numbered(range(1200)) + long
    assert max(bench.control.batch_lines) == 500
    assert max(bench.control.batch_bytes) < 2_000_000


async def test_log_is_complete_only_up_to_when_all_emitted_lines_were_shipped(bench: Bench) -> None:
    envoy = bench.start("a")
    envoy.write("{}")
    first = bench.clock.advance(1)
    await bench.shipper.ship()
    assert bench.control.complete_until["a"] == first

    envoy.emitted, envoy.buffered_bytes = 2, 3  # the second line is still inside Envoy
    bench.clock.advance(1)
    await bench.shipper.ship()
    assert bench.control.complete_until["a"] == first

    envoy.buffered_bytes = 0
    envoy.write_raw(b"{}\n")
    third = bench.clock.advance(1)
    await bench.shipper.ship()
    assert bench.control.complete_until["a"] == third
    assert bench.control.gaps == []


async def test_lines_lost_on_a_full_disk_are_a_gap_after_which_the_log_is_complete_again(bench: Bench) -> None:
    envoy = bench.start("a")
    envoy.write("{}")
    envoy.emitted += 2  # written nowhere, and not buffered either
    moments = []
    for _ in range(3):
        moments.append(bench.clock.advance(1))
        await bench.shipper.ship()
    assert bench.control.gaps == [("a", moments[1])]
    assert bench.control.complete_until["a"] == moments[2]


async def test_end_in_order_makes_the_log_complete_for_ever(bench: Bench) -> None:
    envoy = bench.start("a")
    envoy.write("{}", "{}")
    bench.end(envoy, in_order=True)
    await bench.shipper.ship()
    assert bench.control.lines["a"] == ["{}", "{}"]
    assert bench.control.complete_until["a"].year == 9999
    assert bench.control.gaps == []


async def test_crash_is_one_gap_at_the_moment_of_death_and_half_a_line_is_dropped(bench: Bench) -> None:
    envoy = bench.start("a")
    envoy.write("{}")
    await bench.shipper.ship()
    envoy.write_raw(b'{"half":')
    died = bench.clock.advance(1)
    bench.end(envoy, in_order=False)
    bench.clock.advance(60)
    for _ in range(3):
        await bench.shipper.ship()
    await bench.new_shipper().ship()
    assert bench.control.lines["a"] == ["{}"]
    assert bench.control.gaps == [("a", died)]


async def test_lost_answer_duplicates_no_line(bench: Bench) -> None:
    envoy = bench.start("a")
    envoy.write(*numbered(range(5)))
    bench.control.fails_after_taking_in = 1
    with pytest.raises(DependencyError):
        await bench.shipper.ship()
    envoy.write(*numbered(range(5, 8)))
    await bench.shipper.ship()
    assert bench.control.lines["a"] == numbered(range(8))


async def test_everything_arrives_once_control_is_back(bench: Bench) -> None:
    running = asyncio.create_task(bench.shipper.run())
    first = bench.start("a")
    first.write(*numbered(range(3)))
    await until(lambda: len(bench.control.lines.get("a", [])) == 3, "the first lines")
    await bench.control.stop()

    first.write(*numbered(range(3, 6)))
    bench.end(first, in_order=False)
    second = bench.start("b")
    second.write(*numbered(range(2)))
    await asyncio.wait({running}, timeout=0.2)  # some attempts fail meanwhile
    await bench.control.start()

    await until(lambda: len(bench.control.lines.get("b", [])) == 2, "the lines of the second start")
    assert bench.control.lines["a"] == numbered(range(6))
    assert [start for start, _ in bench.control.gaps] == ["a"]
    running.cancel()
    await asyncio.wait({running})


async def test_log_that_control_refuses_does_not_hold_up_the_others(bench: Bench) -> None:
    for start in ("a", "b"):
        bench.end(bench.start(start), in_order=True)
    live = bench.start("c")
    live.write("{}")
    bench.control.refused = {"a"}
    with pytest.raises(EnginehouseError):
        await bench.shipper.ship()
    assert bench.control.complete_until["b"].year == 9999
    assert bench.control.lines["c"] == ["{}"]


async def test_rotated_log_is_shipped_whole_and_pruned(bench: Bench) -> None:
    envoy = bench.start("a")
    for number in range(100):
        envoy.write(*numbered([number]))
        await bench.shipper.ship()
    assert bench.control.lines["a"] == numbered(range(100))
    assert len(bench.folder.segments("a")) == SETTINGS.segments_kept + 1


async def test_new_shipper_goes_on_in_the_middle_of_a_rotated_log(bench: Bench) -> None:
    envoy = bench.start("a")
    for number in range(40):
        envoy.write(*numbered([number]))
        await bench.shipper.ship()
    await bench.control.stop()
    envoy.write(*numbered(range(40, 45)))
    bench.end(envoy, in_order=True)
    with pytest.raises(DependencyError):
        await bench.shipper.ship()
    await bench.control.start()
    bench.control.lines["a"] = bench.control.lines["a"][:35]  # control lost what it had taken in last

    bench.new_shipper()

    async def shipped() -> bool:
        with suppress(DependencyError):  # the channel takes a moment to connect again
            await bench.shipper.ship()
            return True
        return False

    await until_async(shipped, "everything is shipped")
    assert bench.control.lines["a"] == numbered(range(45))
    assert bench.control.complete_until["a"].year == 9999


async def test_shipped_logs_are_deleted_but_for_the_newest(bench: Bench) -> None:
    for number in range(5):
        bench.end(bench.start(f"start-{number}"), in_order=True)
        await bench.shipper.ship()
    assert {path.name for path in bench.path.iterdir()} == {
        f"start-{number}.{kind}" for number in (3, 4) for kind in ("jsonl", "complete", "shipped")
    }


async def test_log_of_an_envoy_that_is_starting_is_left_alone(bench: Bench) -> None:
    bench.shipper.expect("a")
    envoy = Envoy(bench.folder, "a")
    bench.envoys.append(envoy)
    await bench.shipper.ship()
    assert bench.control.lines == {}
    assert bench.control.gaps == []
