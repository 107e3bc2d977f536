"""Ways to get a running engine: as a child process, in a container, or by attaching to one that runs already."""

from enginehouse.engines.launch.attached import AttachedLauncher, attached_address
from enginehouse.engines.launch.container import ContainerLauncher
from enginehouse.engines.launch.container_command import ContainerCommand, container_command
from enginehouse.engines.launch.engine import EngineUse, Launcher, MeasuredEngine, RunningEngine
from enginehouse.engines.launch.host import EngineHost
from enginehouse.engines.launch.local import LocalLauncher, child_environment
from enginehouse.engines.launch.orphans import end_orphan_containers, end_orphans

__all__ = [
    "AttachedLauncher",
    "ContainerCommand",
    "ContainerLauncher",
    "EngineHost",
    "EngineUse",
    "Launcher",
    "LocalLauncher",
    "MeasuredEngine",
    "RunningEngine",
    "attached_address",
    "child_environment",
    "container_command",
    "end_orphan_containers",
    "end_orphans",
]
