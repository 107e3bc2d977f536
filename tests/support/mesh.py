"""A mesh as a user runs it: `enginehouse up --no-ui`, a process of its own, in a folder of its own, on free ports."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

from enginehouse.cli.running import RunningMesh, find_mesh
from enginehouse.services.local import StateFolder

COMMAND = (sys.executable, "-m", "enginehouse.cli")
START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 45.0
READY_LINE = "Enginehouse is up:"
_MARK = "TEST_MESH"
_STEP_S = 0.02
_LINES_SHOWN = 60


class UserMesh:
    """One mesh. Made, started, and stopped as a user does it; or killed, by tests that are about that.

    Every process that belongs to it carries a mark in its environment, whoever its parent has become: so a process that
    is left behind is found.

    Args:
        folder: for this mesh alone; takes its settings, its state and what it prints.
        settings: the YAML of its settings file. Ports should be 0.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "enginehouse.yaml"
        self.config.write_text(settings)
        self.state = StateFolder(folder / "state")
        self._mark = secrets.token_hex(8)
        self._printed = folder / "printed.log"
        self._up: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """What its processes are started with."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENGINEHOUSE_")}
        return {**inherited, _MARK: self._mark}

    @property
    def up(self) -> subprocess.Popen[bytes]:
        """The process of `enginehouse up`."""
        assert self._up is not None, "the mesh was not started"
        return self._up

    @property
    def printed(self) -> str:
        """Everything that `enginehouse up` has printed."""
        return self._printed.read_text() if self._printed.exists() else ""

    @cached_property
    def running(self) -> RunningMesh:
        """The mesh as the commands of `enginehouse` find it, every port included."""
        return find_mesh(self.state.path)

    @property
    def door(self) -> str:
        """host:port of Envoy."""
        return self.running.door

    @property
    def url(self) -> str:
        """Where HTTP clients connect."""
        return f"http://{self.door}"

    @property
    def replicas_expected(self) -> int:
        """How many replicas the settings place."""
        return sum(one.replicas for deployment in self.running.settings.deployments for one in deployment.placements)

    def launch(self) -> None:
        """Starts `enginehouse up` and returns at once."""
        self.__dict__.pop("running", None)
        command = [*COMMAND, "up", "--no-ui", "--config", str(self.config), "--state", str(self.state.path)]
        with self._printed.open("wb") as printed:
            self._up = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, env=dict(self.environment))

    def start(self, *, deadline_s: float = START_DEADLINE_S) -> None:
        """Starts it and returns once the door says that every replica is ready."""
        self.launch()
        try:
            wait_until(self._has_said_ready, f"it says {READY_LINE!r}", deadline_s)
            self.wait_until_ready()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None

    def stop(self) -> None:
        """Ctrl-C. Nothing may be left then: no process, no lock."""
        self.up.send_signal(signal.SIGINT)
        assert self.up.wait(STOP_DEADLINE_S) == 0, self.story()
        self.assert_gone()

    def abandon(self) -> None:
        """SIGKILL to everything, after a test that has gone wrong."""
        if self._up is not None and self._up.poll() is None:
            self._up.kill()
            self._up.wait()
        for process in self.processes():
            process.kill()

    def kill(self, member: str) -> int:
        """SIGKILL to one process of the mesh; returns its process id."""
        pid = self.process_id(member)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_engine(self, address: str) -> None:
        """SIGKILL to the engine that listens at `address`, host:port."""
        port = address.rpartition(":")[2]
        (engine,) = [process for process in self.processes() if port in process.cmdline()]
        engine.kill()

    def process_ids(self) -> dict[str, int]:
        """The process ids of the members that run, by name; Envoy's, which the gateway runs, is "envoy"."""
        envoys = [process.pid for process in self.processes() if "--disable-hot-restart" in _command(process)]
        return {**self.state.processes(), **({"envoy": envoys[0]} if envoys else {})}

    def process_id(self, member: str) -> int:
        """The process id of a member, for example "node-eu-de"."""
        pid = self.process_ids().get(member)
        assert pid is not None, f"{member} does not run; these do: {self.process_ids()}"
        return pid

    def wait_until_ready(self, *, deadline_s: float = START_DEADLINE_S) -> None:
        """Waits until the door says that every replica is ready."""
        expected = self.replicas_expected
        wait_until(lambda: self._replicas_ready() >= expected, f"{expected} replicas are ready", deadline_s)

    def processes(self) -> list[psutil.Process]:
        """Every process of this mesh, `enginehouse up` included."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:  # it has just ended, or is not ours to look at
                continue
        return found

    def assert_gone(self) -> None:
        """Nothing is left: no process, and no lock that keeps the next mesh out."""
        left = [f"{process.pid} {' '.join(process.cmdline())[:200]}" for process in self.processes()]
        assert not left, f"left behind: {left}\n{self.story()}"
        self.state.acquire()
        self.state.release()

    def story(self) -> str:
        """What the mesh has printed and logged, its ends, for a test that failed."""
        logs = sorted([self._printed, *self.state.path.glob("**/*.log")])
        return "\n".join(f"--- {log.name}\n{_end_of(log)}" for log in logs if log.exists())

    def _has_said_ready(self) -> bool:
        assert self.up.poll() is None, f"enginehouse up ended with {self.up.returncode}"
        return READY_LINE in self.printed

    def _replicas_ready(self) -> int:
        connection = HTTPConnection(self.door, timeout=5)
        try:
            connection.request("GET", "/ready")
            return int(json.load(connection.getresponse())["replicas"]["ready"])
        except (OSError, HTTPException, ValueError, KeyError):
            return 0
        finally:
            connection.close()


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = 20.0) -> None:
    """Returns once `condition` is true; fails naming `what` after `deadline_s`. For tests without an event loop."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {deadline_s:g} s: {what}"
        time.sleep(_STEP_S)


def run_command(mesh: UserMesh, *arguments: str, timeout_s: float = 30.0) -> "subprocess.CompletedProcess[str]":
    """Runs `enginehouse` with these arguments to its end, as the mesh's user would."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=timeout_s, env=dict(mesh.environment)
    )


def run_alone(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs `enginehouse` with these arguments in `folder` to its end, as somebody without a mesh would."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENGINEHOUSE_")}
    whole = {**inherited, **(environment or {})}
    return subprocess.run([*COMMAND, *arguments], cwd=folder, env=whole, capture_output=True, text=True, timeout=60)


def assert_says(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """A command failed with one plain message that has these words, and without a traceback."""
    assert done.returncode == 1, done
    assert done.stderr.startswith("error: "), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:])
