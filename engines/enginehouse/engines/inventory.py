"""The chip of this host, as routing sees it."""

import platform
import re
from pathlib import Path

import psutil

from enginehouse.v1 import common_pb2

_CPUINFO = Path("/proc/cpuinfo")
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


class Inventory:
    """Looks at this host. It knows CPUs, and Apple's chips by their machine.

    Args:
        cpuinfo: where the kernel describes its processors. A host without that file is described by what Python knows.
    """

    def __init__(self, cpuinfo: Path = _CPUINFO) -> None:
        self._cpuinfo = cpuinfo

    def detect(self) -> common_pb2.Chip:
        """The chip that engines on this host run on."""
        facts = _cpu_facts(self._cpuinfo)
        is_apple = platform.system() == "Darwin" and platform.machine() == "arm64"
        vendor = facts.get("vendor_id") or facts.get("CPU implementer", "")
        model = facts.get("model name") or platform.processor() or platform.machine()
        return common_pb2.Chip(
            chip_class=common_pb2.CHIP_CLASS_APPLE if is_apple else common_pb2.CHIP_CLASS_CPU,
            vendor="apple" if is_apple else _VENDORS.get(vendor, vendor.lower()),
            model=" ".join(_NOISE.sub(" ", model).split()).lower(),
            memory_bytes=psutil.virtual_memory().total,
            count=1,
        )


def _cpu_facts(cpuinfo: Path) -> dict[str, str]:
    """The first processor's lines, "name : value"."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
