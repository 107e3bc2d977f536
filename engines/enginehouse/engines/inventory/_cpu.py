"""The host's own processor, and Apple's chips, whose memory is the host's."""

import platform
import re
from pathlib import Path

import psutil

from enginehouse.engines.inventory.accelerator import APPLE, Accelerator, AcceleratorUse
from enginehouse.engines.inventory.commands import RunCommand
from enginehouse.v1 import common_pb2

# CPUID vendor strings, and the implementer codes of Arm's MIDR_EL1 register as Linux prints them.
_VENDORS = {
    "GenuineIntel": "intel",
    "AuthenticAMD": "amd",
    "0x41": "arm",
    "0x61": "apple",
    "0x4e": "nvidia",
    "0xc0": "ampere",
}
_NOISE = re.compile(r"\((?:r|tm)\)|\bcpu\b|\bprocessor\b|\b\d+-core\b|@.*$", re.IGNORECASE)
_BRAND = ("sysctl", "-n", "machdep.cpu.brand_string")


def cpu_chip(cpuinfo: Path) -> common_pb2.Chip:
    """The processor, by what the kernel says in `cpuinfo`, or else by what Python knows."""
    facts = _cpu_facts(cpuinfo)
    vendor = facts.get("vendor_id") or facts.get("CPU implementer", "")
    model = facts.get("model name") or platform.processor() or platform.machine()
    return common_pb2.Chip(
        chip_class=common_pb2.CHIP_CLASS_CPU,
        vendor=_VENDORS.get(vendor, vendor.lower()),
        model=" ".join(_NOISE.sub(" ", model).split()).lower(),
        memory_bytes=psutil.virtual_memory().total,
        count=1,
    )


class AppleProbe:
    """Looks for Apple's own chips.

    Args:
        run: runs sysctl.
        machine: the system's and the machine's name, as `platform` has them.
    """

    def __init__(self, run: RunCommand, machine: tuple[str, str]) -> None:
        self._run = run
        self._machine = machine

    def detect(self) -> list[Accelerator]:
        """The one chip, on a Mac that has it."""
        if self._machine != ("Darwin", "arm64"):
            return []
        brand = (self._run(_BRAND) or "apple silicon").strip().lower()
        return [
            Accelerator(
                id="apple-0",
                index=0,
                chip_class=common_pb2.CHIP_CLASS_APPLE,
                vendor=APPLE,
                model=brand.removeprefix("apple").strip(),
                memory_bytes=psutil.virtual_memory().total,
            )
        ]

    def use(self) -> dict[str, AcceleratorUse]:
        """Nothing: its memory is the host's."""
        return {}


def _cpu_facts(cpuinfo: Path) -> dict[str, str]:
    """The first processor's lines, "name : value"."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
