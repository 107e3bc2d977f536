"""Ways to get a running engine: as a child process, or by attaching to one that runs already."""

from enginehouse.engines.launch.attached import AttachedLauncher, attached_address
from enginehouse.engines.launch.engine import Launcher, RunningEngine
from enginehouse.engines.launch.local import LocalLauncher, child_environment

__all__ = [
    "AttachedLauncher",
    "Launcher",
    "LocalLauncher",
    "RunningEngine",
    "attached_address",
    "child_environment",
]
