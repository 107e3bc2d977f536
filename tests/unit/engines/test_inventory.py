"""What the vendors' tools write, each in its own format, and the accelerators that are read from it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from enginehouse.engines import Inventory
from enginehouse.engines.inventory import AcceleratorUse, run_command
from enginehouse.v1 import common_pb2

MIB, GIB = 1024**2, 1024**3
TWO_H200 = """0, GPU-5c3a, NVIDIA H200, 143771, 1024, 37, Disabled
1, GPU-77f1, NVIDIA H200, 143771, 0, 0, Disabled
"""
SHARED_MEMORY = "0, GPU-aaaa, NVIDIA GB10, [N/A], [N/A], 5, [N/A]\n"
DIVIDED = """0, GPU-5c3a, NVIDIA A100-SXM4-80GB, 81920, 0, [N/A], Enabled
1, GPU-77f1, NVIDIA A100-SXM4-80GB, 81920, 0, 0, Disabled
"""
LISTED = """GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5c3a)
  MIG 3g.40gb     Device  0: (UUID: MIG-1111-2222)
  MIG 1g.10gb+me  Device  1: (UUID: MIG-3333-4444)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-77f1)
"""
ROCM = json.dumps(
    {
        "card1": {
            "Device Name": "AMD Instinct MI300X OAM",
            "Unique ID": "0xbb",
            "VRAM Total Memory (B)": "205822885888",
            "VRAM Total Used Memory (B)": "1000",
            "GPU use (%)": "25",
        },
        "card0": {"Card series": "AMD Instinct MI300X OAM", "VRAM Total Memory (B)": "205822885888"},
        "system": {"Driver version": "6.8"},
    }
)


class Tools:
    """Programs that write what was recorded, and are missing otherwise."""

    def __init__(self, outputs: Mapping[str, str]) -> None:
        self._outputs = outputs

    def __call__(self, command: Sequence[str]) -> str | None:
        key = "list" if tuple(command) == ("nvidia-smi", "-L") else command[0]
        return self._outputs.get(key)


def inventory(
    outputs: Mapping[str, str] | None = None,
    *,
    root: Path = Path("nowhere"),
    environment: Mapping[str, str] | None = None,
    machine: tuple[str, str] = ("Linux", "x86_64"),
) -> Inventory:
    return Inventory(run=Tools(outputs or {}), root=root, environment=environment or {}, machine=machine)


def test_nvidia_gpus_are_found_with_what_they_do() -> None:
    found = inventory({"nvidia-smi": TWO_H200})
    first, second = found.accelerators()
    assert (first.id, first.index, first.vendor, first.model) == ("GPU-5c3a", 0, "nvidia", "h200")
    assert (second.index, second.memory_bytes) == (1, 143771 * MIB)
    assert found.use()["GPU-5c3a"] == AcceleratorUse(1024 * MIB, 0.37)
    assert found.detect().chip_class == common_pb2.CHIP_CLASS_GPU


def test_gpu_that_shares_the_hosts_memory_has_none_of_its_own() -> None:
    (gpu,) = inventory({"nvidia-smi": SHARED_MEMORY}).accelerators()
    assert (gpu.model, gpu.memory_bytes) == ("gb10", 0)


def test_divided_gpu_is_replaced_by_its_partitions() -> None:
    found = inventory({"nvidia-smi": DIVIDED, "list": LISTED}).accelerators()
    assert [(one.id, one.memory_bytes // GIB, one.is_partition) for one in found] == [
        ("MIG-1111-2222", 40, True),
        ("MIG-3333-4444", 10, True),
        ("GPU-77f1", 80, False),
    ]


def test_amd_gpus_are_found_in_the_keys_of_old_and_new_tools() -> None:
    found = inventory({"rocm-smi": ROCM})
    first, second = found.accelerators()
    assert (first.id, first.model) == ("amd-0", "instinct mi300x")
    assert (second.id, second.model, second.memory_bytes) == ("amd-0xbb", "instinct mi300x", 205822885888)
    assert found.use()["amd-0xbb"] == AcceleratorUse(1000, 0.25)
    assert found.use()["amd-0"].utilization is None


def test_tpu_chips_are_found_by_their_devices(tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / f"accel{number}").touch()
    found = inventory(root=tmp_path, environment={"TPU_ACCELERATOR_TYPE": "v5litepod-8"}).accelerators()
    assert [(one.index, one.vendor, one.model, one.memory_bytes // GIB) for one in found] == [
        (0, "google", "v5e", 16),
        (1, "google", "v5e", 16),
    ]


def test_devices_of_virtual_machines_are_tpus_only_on_a_host_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "dev" / "vfio").mkdir(parents=True)
    (tmp_path / "dev" / "vfio" / "0").touch()
    assert inventory(root=tmp_path).accelerators() == []
    (chip,) = inventory(root=tmp_path, environment={"TPU_ACCELERATOR_TYPE": "v6e-1"}).accelerators()
    assert (chip.model, chip.memory_bytes // GIB) == ("v6e", 32)


def test_apples_chip_has_the_hosts_memory() -> None:
    (chip,) = inventory({"sysctl": "Apple M4 Max\n"}, machine=("Darwin", "arm64")).accelerators()
    assert (chip.vendor, chip.model, chip.chip_class) == ("apple", "m4 max", common_pb2.CHIP_CLASS_APPLE)
    assert chip.memory_bytes > 0


@pytest.mark.parametrize("text", ["", "NVIDIA-SMI has failed", "0, GPU-1\n", "{", "[]", '{"card0": 1}'])
def test_tool_that_writes_something_else_finds_nothing(text: str) -> None:
    assert inventory({"nvidia-smi": text, "rocm-smi": text}).accelerators() == []


def test_host_without_accelerators_runs_on_its_processor() -> None:
    found = inventory()
    assert (found.accelerators(), found.use()) == ([], {})
    assert found.detect().chip_class == common_pb2.CHIP_CLASS_CPU
    assert found.chip_of(common_pb2.CHIP_CLASS_GPU) == common_pb2.Chip(chip_class=common_pb2.CHIP_CLASS_GPU, count=1)


def test_chip_of_a_class_is_that_one_and_not_the_first() -> None:
    found = inventory({"nvidia-smi": TWO_H200})
    assert found.chip_of(common_pb2.CHIP_CLASS_CPU).chip_class == common_pb2.CHIP_CLASS_CPU
    assert found.chip_of(common_pb2.CHIP_CLASS_GPU).model == "h200"


def test_program_that_is_missing_or_fails_wrote_nothing() -> None:
    assert run_command(("no-such-program-of-ours",)) is None
    assert run_command(("false",)) is None
    assert run_command(("echo", "said")) == "said\n"
