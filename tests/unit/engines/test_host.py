"""What is asked of the host: its chip, its ports, why it killed a process, what a process wrote."""

import asyncio
import socket
from pathlib import Path

import pytest

from enginehouse.engines import FailureClass, Inventory
from enginehouse.engines.failure import DeathDiagnosis, kernel_memory_kills
from enginehouse.engines.ports import ReservedPort
from enginehouse.engines.process import OutputLog
from enginehouse.v1 import common_pb2

INTEL = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Platinum 8480C CPU @ 2.00GHz\n\nx: 1\n"
)
AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9654 96-Core Processor\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("cpuinfo", "vendor", "model"),
    [(INTEL, "intel", "intel xeon platinum 8480c"), (AMD, "amd", "amd epyc 9654"), (ARM, "arm", None)],
)
def test_cpu_is_described_in_lower_case(tmp_path: Path, cpuinfo: str, vendor: str, model: str | None) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    chip = Inventory(path).detect()
    assert (chip.chip_class, chip.vendor, chip.count) == (common_pb2.CHIP_CLASS_CPU, vendor, 1)
    assert chip.model == model if model is not None else chip.model == chip.model.lower()
    assert chip.memory_bytes > 0


def test_host_without_cpuinfo_is_described_all_the_same(tmp_path: Path) -> None:
    assert Inventory(tmp_path / "none").detect().model


def test_reserved_port_is_free_and_given_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ReservedPort.reserve()
    offered = iter([first.number, first.number, 0])
    free = ReservedPort.reserve()
    free.release()

    def offer(host: str) -> int:
        return next(offered) or free.number

    monkeypatch.setattr("enginehouse.engines.ports._free_tcp_port", offer)
    second = ReservedPort.reserve()
    assert second.number == free.number
    with socket.create_server(("127.0.0.1", first.number)):
        pass
    first.release()
    second.release()


def vmstat(root: Path, kills: int) -> None:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "vmstat").write_text(f"nr_free_pages 1\noom_kill {kills}\n")


def test_sigkill_counts_as_out_of_memory_only_with_the_kernels_word(tmp_path: Path) -> None:
    vmstat(tmp_path, 3)
    diagnosis = DeathDiagnosis(lambda: kernel_memory_kills(tmp_path))
    assert diagnosis.ending(-9).failure_class is FailureClass.CRASH
    vmstat(tmp_path, 4)
    ending = diagnosis.ending(-9)
    assert (ending.failure_class, ending.exit_code) == (FailureClass.OUT_OF_MEMORY, -9)
    assert diagnosis.ending(-11).failure_class is FailureClass.CRASH
    assert diagnosis.ending(1).failure_class is FailureClass.EXIT


def test_memory_kills_of_a_cgroup_are_seen(tmp_path: Path) -> None:
    assert kernel_memory_kills(tmp_path) == 0
    folder = tmp_path / "sys" / "fs" / "cgroup"
    folder.mkdir(parents=True)
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 2\noom_group_kill 0\n")
    assert kernel_memory_kills(tmp_path) == 2


def test_signal_is_named() -> None:
    diagnosis = DeathDiagnosis(lambda: 0)
    assert diagnosis.ending(-11).reason == "SIGSEGV ended the engine"
    assert diagnosis.ending(-64).reason.endswith("ended the engine")


async def test_output_is_kept_in_memory_and_on_disk_and_rotated(tmp_path: Path) -> None:
    output = OutputLog(tmp_path / "engine.log", lines_max=3, bytes_max=1000)
    stream = asyncio.StreamReader()
    drained = asyncio.create_task(output.drain(stream))
    for number in range(200):
        stream.feed_data(f"line {number}\n".encode())
    stream.feed_data(b"x" * 20_000 + b"\nno line end")
    stream.feed_eof()
    await drained
    assert output.lines(2)[1] == "no line end"
    assert len(output.lines(100)) == 3
    assert all(len(line) <= 8192 for line in output.lines(100))
    assert (tmp_path / "engine.log.1").exists()
    assert (tmp_path / "engine.log").read_bytes().endswith(b"no line end\n")
    output.close()


async def test_follower_gets_new_lines(tmp_path: Path) -> None:
    output = OutputLog(tmp_path / "engine.log")
    output.write(b"before")
    lines = output.follow()
    first = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    output.write(b"after")
    assert await first == "after"
    await lines.aclose()  # type: ignore[attr-defined]
    output.close()
