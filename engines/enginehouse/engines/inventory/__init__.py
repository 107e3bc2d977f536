"""The chips of this host: which there are, what they do, and which of them are whose."""

from enginehouse.engines.inventory.accelerator import Accelerator, AcceleratorUse, visible_devices
from enginehouse.engines.inventory.commands import RunCommand, run_command
from enginehouse.engines.inventory.host import Inventory
from enginehouse.engines.inventory.pool import AcceleratorPool, Claim, Claims

__all__ = [
    "Accelerator",
    "AcceleratorPool",
    "AcceleratorUse",
    "Claim",
    "Claims",
    "Inventory",
    "RunCommand",
    "run_command",
    "visible_devices",
]
