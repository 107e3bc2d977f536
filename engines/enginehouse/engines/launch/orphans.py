"""Engines that outlived the node that started them, and what a tree of processes takes.

The kernel kills an engine with its node, but not what the engine itself has started: workers of several processes
hold GPUs. All of them have the mark of their owner in their environment.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from enginehouse.engines.inventory import RunCommand, run_command
from enginehouse.engines.launch.container_command import RUNTIMES
from enginehouse.engines.launch.host import MARKER_VARIABLE, Owner

_DEATH_S = 5.0


@dataclass(frozen=True, slots=True)
class ProcessTree:
    """A process and its descendants. `memory_bytes` is what they keep in RAM, shared pages counted for each."""

    processes: int
    memory_bytes: int


def process_tree(pid: int, depth: int | None = None) -> ProcessTree:
    """What a process takes, with all of its descendants; alone with a depth of 0. Nothing when it has ended."""
    try:
        root = psutil.Process(pid)
        members = [root, *(root.children(recursive=True) if depth is None else ())]
    except psutil.Error:
        return ProcessTree(0, 0)
    sizes: list[int] = []
    for member in members:
        with suppress(psutil.Error):
            sizes.append(member.memory_info().rss)
    return ProcessTree(len(sizes), sum(sizes))


def end_orphans(folder: Path) -> list[int]:
    """Kills the engines that a dead node left behind in `folder`, and returns their pids. It may block for seconds."""
    own = str(folder.resolve())
    orphans = [process for process, owner in _marked() if owner.folder == own and not owner.is_alive()]
    for process in orphans:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(orphans, timeout=_DEATH_S)
    return [process.pid for process in orphans]


def _marked() -> Iterator[tuple[psutil.Process, Owner]]:
    """Every process that we may look at and that has an owner's mark; never ourselves."""
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARKER_VARIABLE, "") if process.pid != os.getpid() else ""
        except (psutil.Error, OSError):
            continue
        owner = Owner.parse(mark)
        if owner is not None:
            yield process, owner


def end_orphan_containers(kept: Path, run: RunCommand = run_command) -> list[str]:
    """Removes the containers that a dead node left behind, by the names that it kept. It may block for seconds.

    A host without such names is not asked anything, since a runtime may be slow to say that it is not there.
    """
    try:
        lines = kept.read_text().splitlines()
    except OSError:
        return []
    names: list[str] = []
    for line in lines:
        runtime, _, name = line.partition(" ")
        if (
            runtime in RUNTIMES
            and name.startswith("enginehouse-")
            and run((runtime, "rm", "--force", name)) is not None
        ):
            names.append(name)
    kept.unlink(missing_ok=True)
    return names
