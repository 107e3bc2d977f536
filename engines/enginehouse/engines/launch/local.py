"""An engine as a child process on this host."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from enginehouse.engines.clock import Clock
from enginehouse.engines.descriptor import EngineDescriptor, EngineSpec
from enginehouse.engines.failure import DeathDiagnosis, Ending
from enginehouse.engines.inventory import Accelerator, visible_devices
from enginehouse.engines.inventory.accelerator import no_devices
from enginehouse.engines.launch.engine import EngineUse
from enginehouse.engines.launch.host import EngineHost
from enginehouse.engines.launch.orphans import process_tree
from enginehouse.engines.launch.site import LaunchSite
from enginehouse.engines.ports import ReservedPort
from enginehouse.engines.process import ManagedProcess, OutputLog

_PORT_POLL_S = 0.05
# Our own settings may hold keys and database addresses. No engine needs them.
_PRIVATE_PREFIX = "ENGINEHOUSE_"
# Memory that is filled counts as progress in steps of this size, so that a trickle does not.
_PROGRESS_BYTES = 64 * 1024 * 1024


def child_environment(base: Mapping[str, str], *additions: Mapping[str, str]) -> dict[str, str]:
    """The environment of an engine: `base` without our own settings, then each of `additions`."""
    environment = {name: value for name, value in base.items() if not name.startswith(_PRIVATE_PREFIX)}
    environment["PYTHONUNBUFFERED"] = "1"
    for addition in additions:
        environment.update(addition)
    return environment


class LocalEngine:
    """A running child process that listens on a reserved port.

    Args:
        process: the child.
        address: host:port.
        clock: for polling.
        host: where it runs.
        accelerators: its own.
    """

    def __init__(
        self,
        process: ManagedProcess,
        address: str,
        clock: Clock,
        host: EngineHost,
        accelerators: tuple[Accelerator, ...] = (),
    ) -> None:
        self.address = address
        self.process = process
        self._clock = clock
        self._host = host
        self._accelerators = accelerators
        self._diagnosis = DeathDiagnosis()

    async def listening(self) -> None:
        """Returns once something accepts connections at `address`."""
        host, _, port = self.address.rpartition(":")
        while not await accepts(host, int(port)):
            await self._clock.sleep(_PORT_POLL_S)

    async def wait(self) -> Ending:
        """Returns once the process has ended, with how. What it left behind in its group is killed."""
        exit_code = await self.process.wait()
        self.process.kill_group()
        return self._diagnosis.ending(exit_code)

    async def stop(self, *, grace_s: float, number: signal.Signals = signal.SIGTERM) -> int | None:
        """Ends the process: the signal, `grace_s` seconds, SIGKILL to its group."""
        return await self.process.stop(grace_s=grace_s, number=number)

    def progress(self) -> int:
        """Grows while the process fills its memory."""
        return process_tree(self.process.pid, depth=0).memory_bytes // _PROGRESS_BYTES

    async def use(self) -> EngineUse | None:
        """What the process, its descendants and their accelerators take now. None: it has ended."""
        if self.process.exit_code is not None:
            return None
        tree = await asyncio.to_thread(process_tree, self.process.pid)
        return await self._host.use(tree.memory_bytes, self._accelerators)


class LocalLauncher:
    """Starts one replica's engine on loopback, at the same port for as long as that is free.

    So its address stays what others know, and an engine whose port a stranger took meanwhile comes back at another.

    Args:
        clock: for polling.
        environment: what engines inherit, less our own settings.
        reserve: gives a free port.
        host: its accelerators, and whose engines these are. None: there are no accelerators.
    """

    def __init__(
        self,
        clock: Clock,
        environment: Mapping[str, str] | None = None,
        reserve: Callable[[], ReservedPort] = ReservedPort.reserve,
        host: EngineHost | None = None,
    ) -> None:
        self._clock = clock
        self._environment = os.environ if environment is None else environment
        self._host = host or EngineHost()
        self._site = LaunchSite(reserve, self._host)

    async def launch(
        self, spec: EngineSpec, descriptor: EngineDescriptor, model: Path | None, output: OutputLog
    ) -> LocalEngine:
        """Starts the process.

        Raises:
            RequestError: the settings can never work.
            EngineError: the program does not exist, or the accelerators are somebody else's.
        """
        source = spec.settings.model_source if model is None else str(model)
        assignment = await asyncio.to_thread(self._site.assign, spec, descriptor, source)
        launch = descriptor.command(spec, assignment)
        await asyncio.to_thread(self._site.write, launch.files, assignment.folder)
        process = await ManagedProcess.start(
            launch.command,
            output=output,
            environment=child_environment(
                self._environment,
                no_devices() if self._host.hides_accelerators else {},
                visible_devices(assignment.accelerators),
                launch.environment,
                spec.settings.environment,
                self._host.marker(),
            ),
        )
        address = f"{assignment.host}:{assignment.port}"
        return LocalEngine(process, address, self._clock, self._host, assignment.accelerators)

    def close(self) -> None:
        """Gives ports and accelerators back."""
        self._site.close()


async def accepts(host: str, port: int) -> bool:
    """Something accepts TCP connections at `host`:`port`."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
