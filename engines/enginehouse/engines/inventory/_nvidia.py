"""NVIDIA GPUs, by nvidia-smi (its own --help-query-gpu names the columns)."""

import re
from dataclasses import dataclass

from enginehouse.engines.inventory.accelerator import NVIDIA, Accelerator, AcceleratorUse
from enginehouse.engines.inventory.commands import RunCommand
from enginehouse.v1 import common_pb2

_COLUMNS = "index,uuid,name,memory.total,memory.used,utilization.gpu,mig.mode.current"
_QUERY = ("nvidia-smi", f"--query-gpu={_COLUMNS}", "--format=csv,noheader,nounits")
_LIST = ("nvidia-smi", "-L")
_MIB = 1024 * 1024
_GPU_LINE = re.compile(r"GPU (\d+): .*\(UUID: (GPU-[\w-]+)\)")
_MIG_LINE = re.compile(r"\s+MIG (\d+)(?:c\.\d+)?g\.(\d+)gb\S*\s+Device\s+\d+: \(UUID: (MIG-[\w/-]+)\)")


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    uuid: str
    name: str
    memory_mib: int
    used_mib: int
    utilization: float | None
    has_partitions: bool


class NvidiaProbe:
    """Looks for NVIDIA GPUs, and for the partitions of those that are divided by MIG."""

    def __init__(self, run: RunCommand) -> None:
        self._run = run

    def detect(self) -> list[Accelerator]:
        """The GPUs by index; in place of a divided one, its partitions."""
        rows = self._rows()
        partitions = self._partitions() if any(row.has_partitions for row in rows) else {}
        found: list[Accelerator] = []
        for row in rows:
            if row.has_partitions:
                found += [
                    _accelerator(row, id=uuid, memory_bytes=gigabytes * 1024 * _MIB, is_partition=True)
                    for uuid, gigabytes in partitions.get(row.uuid, ())
                ]
            else:
                found.append(_accelerator(row, id=row.uuid, memory_bytes=row.memory_mib * _MIB, is_partition=False))
        return found

    def use(self) -> dict[str, AcceleratorUse]:
        """What each GPU does now, by id. A partition's use is not told by this tool."""
        return {row.uuid: AcceleratorUse(row.used_mib * _MIB, row.utilization) for row in self._rows()}

    def _rows(self) -> list[_Row]:
        text = self._run(_QUERY) or ""
        return [row for line in text.splitlines() if (row := _row(line)) is not None]

    def _partitions(self) -> dict[str, list[tuple[str, int]]]:
        """For each GPU's id, the id and the gigabytes of each of its partitions."""
        found: dict[str, list[tuple[str, int]]] = {}
        gpu = ""
        for line in (self._run(_LIST) or "").splitlines():
            if match := _GPU_LINE.match(line):
                gpu = match[2]
            elif match := _MIG_LINE.match(line):
                found.setdefault(gpu, []).append((match[3], int(match[2])))
        return found


def _row(line: str) -> _Row | None:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(_COLUMNS.split(",")) or not cells[0].isdigit():
        return None
    utilization = _number(cells[5])
    return _Row(
        index=int(cells[0]),
        uuid=cells[1],
        name=cells[2],
        memory_mib=_number(cells[3]) or 0,  # a chip that shares the host's memory says [N/A]
        used_mib=_number(cells[4]) or 0,
        utilization=None if utilization is None else utilization / 100,
        has_partitions=cells[6] == "Enabled",
    )


def _accelerator(row: _Row, *, id: str, memory_bytes: int, is_partition: bool) -> Accelerator:  # noqa: A002
    model = row.name.lower().removeprefix("nvidia").strip()
    return Accelerator(
        id=id,
        index=row.index,
        chip_class=common_pb2.CHIP_CLASS_GPU,
        vendor=NVIDIA,
        model=model,
        memory_bytes=memory_bytes,
        is_partition=is_partition,
    )


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None
