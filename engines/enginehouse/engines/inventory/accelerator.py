"""One accelerator of a host, and how an engine is told which ones are its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enginehouse.v1 import common_pb2

NVIDIA = "nvidia"
AMD = "amd"
GOOGLE = "google"
APPLE = "apple"

# CUDA C++ Programming Guide, "CUDA environment variables"; ROCm documentation, "GPU isolation techniques"; libtpu.
_VARIABLES: Mapping[str, tuple[str, ...]] = {
    NVIDIA: ("CUDA_VISIBLE_DEVICES",),
    AMD: ("HIP_VISIBLE_DEVICES",),
    GOOGLE: ("TPU_VISIBLE_CHIPS",),
}
# Without it CUDA counts the fastest device first, and nvidia-smi by the bus.
_CUDA_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator.

    Args:
        id: that no other accelerator of the host has, now or later.
        index: as the vendor's tools count.
        chip_class, vendor, model: as routing sees them, lower case.
        memory_bytes: 0 when unknown.
        is_partition: a part of a device, as NVIDIA's MIG makes them. It has no index of its own.
    """

    id: str
    index: int
    chip_class: common_pb2.ChipClass.ValueType
    vendor: str
    model: str
    memory_bytes: int
    is_partition: bool = False


@dataclass(frozen=True, slots=True)
class AcceleratorUse:
    """What an accelerator does now.

    Args:
        memory_bytes: taken, by anybody.
        utilization: share of the time in which it worked, 0 to 1. None: not known.
    """

    memory_bytes: int
    utilization: float | None


def visible_devices(accelerators: Sequence[Accelerator]) -> dict[str, str]:
    """The environment in which an engine sees these accelerators and no others. Empty without accelerators.

    Devices are named by index, because engines take the value apart and read numbers (vLLM does); a partition has
    nothing but its id.
    """
    environment: dict[str, str] = {}
    for vendor, variables in _VARIABLES.items():
        own = [one for one in accelerators if one.vendor == vendor]
        if own:
            value = ",".join(one.id if one.is_partition else str(one.index) for one in own)
            environment |= dict.fromkeys(variables, value)
    if "CUDA_VISIBLE_DEVICES" in environment:
        environment |= _CUDA_ORDER
    return environment


def no_devices() -> dict[str, str]:
    """The environment in which an engine sees no accelerator at all."""
    return {name: "" for vendor in (NVIDIA, AMD) for name in _VARIABLES[vendor]}
