"""What is left of a node that was killed, and nodes that share a host."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from enginehouse.contract import DependencyError
from enginehouse.engines import EngineHost, Inventory
from enginehouse.engines.inventory.pool import default_claims_folder
from enginehouse.engines.launch import end_orphans
from enginehouse.engines.launch.host import MARKER_VARIABLE, Owner
from enginehouse.engines.launch.orphans import process_tree
from enginehouse.services.node.folder import FolderLock
from enginehouse.v1 import common_pb2
from tests.integration.engines.engines import is_alive
from tests.support.waiting import until

# A node that starts an engine whose worker leaves its group, as workers of several processes do, and says its pid.
NODE = """
import asyncio, sys
from pathlib import Path
from enginehouse.engines import EngineHost
from enginehouse.engines.launch import child_environment
from enginehouse.engines.process import ManagedProcess, OutputLog
from enginehouse.v1 import common_pb2
import os

ENGINE = (
    "import subprocess, sys, time\\n"
    "worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\\n"
    "print(worker.pid, flush=True)\\n"
    "time.sleep(600)\\n"
)

async def main():
    folder = Path(sys.argv[1])
    host = EngineHost.detect(folder, common_pb2.CHIP_CLASS_CPU)
    output = OutputLog(folder / "engine.log")
    environment = child_environment(os.environ, host.marker())
    await ManagedProcess.start((sys.executable, "-c", ENGINE), output=output, environment=environment)
    async for line in output.follow():
        print(line, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[int]:
    """The worker of an engine whose node was killed in `tmp_path`/a."""
    with subprocess.Popen([sys.executable, "-c", NODE, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        pid = int(node.stdout.readline())
        assert end_orphans(tmp_path / "a") == []  # the node lives
        node.kill()
    yield pid
    if is_alive(pid):
        psutil.Process(pid).kill()


async def test_worker_of_a_dead_node_is_ended_by_the_next_node_of_its_folder(tmp_path: Path, worker: int) -> None:
    assert is_alive(worker)
    assert await asyncio.to_thread(end_orphans, tmp_path / "b") == []  # another node's folder
    assert is_alive(worker)
    assert worker in await asyncio.to_thread(end_orphans, tmp_path / "a")
    await until(lambda: not is_alive(worker), "the worker is gone")


def test_owner_is_told_from_a_later_process_of_the_same_id(tmp_path: Path) -> None:
    me = Owner.this_process(tmp_path)
    assert me.is_alive()
    assert Owner.parse(str(me)) == me
    assert not Owner(me.folder, me.pid, me.started - 1000).is_alive()
    assert Owner.parse("") is Owner.parse("a|b|c") is None


def test_engines_carry_their_owners_mark_and_see_no_accelerator_on_a_node_of_processors(tmp_path: Path) -> None:
    host = EngineHost.detect(tmp_path, common_pb2.CHIP_CLASS_CPU, Inventory(run=lambda command: None))
    assert host.hides_accelerators
    assert Owner.parse(host.marker()[MARKER_VARIABLE]) == Owner.this_process(tmp_path)
    assert EngineHost().marker() == {}


def test_two_nodes_never_work_in_one_folder(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(DependencyError, match="another node works in"):
        FolderLock(tmp_path)
    first.release()
    FolderLock(tmp_path).release()


def test_nodes_of_one_user_agree_on_accelerators_in_one_folder() -> None:
    assert str(os.getuid()) in default_claims_folder().parent.name


def test_memory_of_a_tree_is_that_of_all_its_processes() -> None:
    alone, whole = process_tree(os.getpid(), depth=0), process_tree(os.getpid())
    assert alone.processes == 1
    assert whole.memory_bytes >= alone.memory_bytes > 1024 * 1024
    assert process_tree(2**22 + 1).processes == 0
