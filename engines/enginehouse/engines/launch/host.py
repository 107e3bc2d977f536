"""What all engines of one node share: the host's accelerators, and the mark by which they are found again."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from enginehouse.engines.inventory import Accelerator, AcceleratorPool, Claims, Inventory
from enginehouse.engines.launch.engine import EngineUse
from enginehouse.v1 import common_pb2

MARKER_VARIABLE = "ENGINEHOUSE_ENGINE_OWNER"
_SEPARATOR = "|"


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that an engine belongs to. A pid alone is not a process: it is used again.

    Args:
        folder: of the node. No two nodes have one folder.
        pid: of the node's process.
        started: when that process was started, in milliseconds since the epoch.
    """

    folder: str
    pid: int
    started: int

    @classmethod
    def this_process(cls, folder: Path) -> "Owner":
        """Ourselves, at work in `folder`."""
        return cls(str(folder.resolve()), os.getpid(), _started(psutil.Process()))

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """The owner that `text` names; None when it names none."""
        parts = text.rsplit(_SEPARATOR, 2)
        if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]))

    def __str__(self) -> str:
        """As `parse` reads it."""
        return _SEPARATOR.join((self.folder, str(self.pid), str(self.started)))

    def is_alive(self) -> bool:
        """The process is still there, and is the same."""
        try:
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and _started(process) == self.started
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True, slots=True)
class EngineHost:
    """The host as engines are launched on it.

    Args:
        claims: gives out accelerators.
        inventory: says what they do.
        owner: marks the engines. None: they are not marked.
        hides_accelerators: engines are to see none, since the node says that it runs on the processor.
    """

    claims: Claims = field(default_factory=lambda: AcceleratorPool(()))
    inventory: Inventory | None = None
    owner: Owner | None = None
    hides_accelerators: bool = False

    @classmethod
    def detect(
        cls, folder: Path, chip_class: common_pb2.ChipClass.ValueType, inventory: Inventory | None = None
    ) -> "EngineHost":
        """This host, for a node that works in `folder` on chips of one class. It may block for seconds."""
        inventory = inventory or Inventory()
        found = inventory.accelerators() if chip_class != common_pb2.CHIP_CLASS_CPU else []
        accelerators = [one for one in found if chip_class in (one.chip_class, common_pb2.CHIP_CLASS_UNSPECIFIED)]
        return cls(
            claims=AcceleratorPool(accelerators),
            inventory=inventory if accelerators else None,
            owner=Owner.this_process(folder),
            hides_accelerators=chip_class == common_pb2.CHIP_CLASS_CPU,
        )

    def marker(self) -> Mapping[str, str]:
        """The environment by which an engine, and all that it starts, is found again."""
        return {} if self.owner is None else {MARKER_VARIABLE: str(self.owner)}

    async def use(self, memory_bytes: int, accelerators: Sequence[Accelerator]) -> EngineUse:
        """The use of an engine that takes `memory_bytes`, with that of its accelerators."""
        if self.inventory is None or not accelerators:
            return EngineUse(memory_bytes)
        known = await asyncio.to_thread(self.inventory.use)
        uses = [known[one.id] for one in accelerators if one.id in known]
        shares = [use.utilization for use in uses if use.utilization is not None]
        return EngineUse(
            memory_bytes,
            sum(use.memory_bytes for use in uses),
            sum(shares) / len(shares) if shares else None,
        )


def _started(process: psutil.Process) -> int:
    return round(process.create_time() * 1000)
