"""Google TPUs, by their devices, and by what Google's machine images put into the environment."""

import re
from collections.abc import Mapping
from pathlib import Path

from enginehouse.engines.inventory.accelerator import GOOGLE, Accelerator, AcceleratorUse
from enginehouse.v1 import common_pb2

_TYPE_VARIABLE = "TPU_ACCELERATOR_TYPE"
_GIB = 1024**3
# Memory of one chip, by generation: Cloud TPU documentation, "TPU architecture".
_MEMORY_BYTES: Mapping[str, int] = {
    "v2": 16 * _GIB,
    "v3": 32 * _GIB,
    "v4": 32 * _GIB,
    "v5e": 16 * _GIB,
    "v5p": 95 * _GIB,
    "v6e": 32 * _GIB,
    "v7x": 192 * _GIB,
}
_GENERATION = re.compile(r"(v\d+)(litepod|p|e|x)?")


class TpuProbe:
    """Looks for TPU chips.

    Args:
        root: of the file system.
        environment: of this process.
    """

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._root = root
        self._environment = environment

    def detect(self) -> list[Accelerator]:
        """The chips by number: /dev/accel* up to v5e, /dev/vfio/* on a host that says it has TPUs from then on."""
        generation = self._generation()
        numbers = _numbers(self._root / "dev", "accel")
        if not numbers and generation:
            numbers = _numbers(self._root / "dev" / "vfio", "")
        return [
            Accelerator(
                id=f"tpu-{number}",
                index=number,
                chip_class=common_pb2.CHIP_CLASS_TPU,
                vendor=GOOGLE,
                model=generation or "tpu",
                memory_bytes=_MEMORY_BYTES.get(generation, 0),
            )
            for number in numbers
        ]

    def use(self) -> dict[str, AcceleratorUse]:
        """Nothing: no tool on the host tells it."""
        return {}

    def _generation(self) -> str:
        match = _GENERATION.match(self._environment.get(_TYPE_VARIABLE, "").lower())
        if match is None:
            return ""
        return match[1] + {"litepod": "e", None: ""}.get(match[2], match[2] or "")


def _numbers(folder: Path, prefix: str) -> list[int]:
    names = (path.name.removeprefix(prefix) for path in folder.glob(f"{prefix}*"))
    return sorted(int(name) for name in names if name.isdigit())
