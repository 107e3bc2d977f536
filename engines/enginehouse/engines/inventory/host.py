"""All chips of one host, whoever made them."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from enginehouse.engines.inventory._cpu import AppleProbe, cpu_chip
from enginehouse.engines.inventory._nvidia import NvidiaProbe
from enginehouse.engines.inventory._rocm import RocmProbe
from enginehouse.engines.inventory._tpu import TpuProbe
from enginehouse.engines.inventory.accelerator import Accelerator, AcceleratorUse
from enginehouse.engines.inventory.commands import RunCommand, run_command
from enginehouse.v1 import common_pb2

_CPUINFO = Path("/proc/cpuinfo")
_ROOT = Path("/")


class Probe(Protocol):
    """Looks for the accelerators of one maker."""

    def detect(self) -> list[Accelerator]:
        """Those that there are. It may block for seconds."""
        ...

    def use(self) -> dict[str, AcceleratorUse]:
        """What each does now, by id; those of which it is known. It may block for seconds."""
        ...


class Inventory:
    """Looks at this host. Nothing is kept between two looks.

    Args:
        cpuinfo: where the kernel describes its processors. A host without that file is described by what Python knows.
        run: runs the vendors' tools.
        root: of the file system, for devices.
        environment: of this process.
        machine: names of the system and of the machine. None: this one.
    """

    def __init__(
        self,
        cpuinfo: Path = _CPUINFO,
        *,
        run: RunCommand = run_command,
        root: Path = _ROOT,
        environment: Mapping[str, str] | None = None,
        machine: tuple[str, str] | None = None,
    ) -> None:
        self._cpuinfo = cpuinfo
        environment = os.environ if environment is None else environment
        self._probes: Sequence[Probe] = (
            NvidiaProbe(run),
            RocmProbe(run),
            TpuProbe(root, environment),
            AppleProbe(run, machine or (platform.system(), platform.machine())),
        )

    def accelerators(self) -> list[Accelerator]:
        """Every accelerator, by maker and index. It may block for seconds."""
        return [accelerator for probe in self._probes for accelerator in probe.detect()]

    def use(self) -> dict[str, AcceleratorUse]:
        """What accelerators do now, by id. It may block for seconds."""
        return {id: use for probe in self._probes for id, use in probe.use().items()}  # noqa: A001

    def detect(self) -> common_pb2.Chip:
        """The chip that engines on this host run on: the first accelerator, or else the processor."""
        accelerators = self.accelerators()
        return _chip(accelerators[0]) if accelerators else cpu_chip(self._cpuinfo)

    def chip_of(self, chip_class: common_pb2.ChipClass.ValueType) -> common_pb2.Chip:
        """The host's chip of that class; nothing but the class where it has none."""
        if chip_class == common_pb2.CHIP_CLASS_CPU:
            return cpu_chip(self._cpuinfo)
        found = (one for one in self.accelerators() if one.chip_class == chip_class)
        return next((_chip(one) for one in found), common_pb2.Chip(chip_class=chip_class, count=1))


def _chip(accelerator: Accelerator) -> common_pb2.Chip:
    return common_pb2.Chip(
        chip_class=accelerator.chip_class,
        vendor=accelerator.vendor,
        model=accelerator.model,
        memory_bytes=accelerator.memory_bytes,
        count=1,
    )
