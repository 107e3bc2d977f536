"""An engine as a child process on this host."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from enginehouse.engines.clock import Clock
from enginehouse.engines.descriptor import Assignment, EngineDescriptor, EngineSpec
from enginehouse.engines.failure import DeathDiagnosis, Ending
from enginehouse.engines.ports import ReservedPort
from enginehouse.engines.process import ManagedProcess, OutputLog

_PORT_POLL_S = 0.05
# Our own settings may hold keys and database addresses. No engine needs them.
_PRIVATE_PREFIX = "ENGINEHOUSE_"


def child_environment(base: Mapping[str, str], *additions: Mapping[str, str]) -> dict[str, str]:
    """The environment of an engine: `base` without our own settings, then each of `additions`."""
    environment = {name: value for name, value in base.items() if not name.startswith(_PRIVATE_PREFIX)}
    environment["PYTHONUNBUFFERED"] = "1"
    for addition in additions:
        environment.update(addition)
    return environment


class LocalEngine:
    """A running child process that listens on a reserved port."""

    def __init__(self, process: ManagedProcess, address: str, clock: Clock) -> None:
        self.address = address
        self.process = process
        self._clock = clock
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


class LocalLauncher:
    """Starts one replica's engine on loopback, at the same port for as long as that is free.

    So its address stays what others know, and an engine whose port a stranger took meanwhile comes back at another.

    Args:
        clock: for polling.
        environment: what engines inherit, less our own settings.
        reserve: gives a free port.
    """

    def __init__(
        self,
        clock: Clock,
        environment: Mapping[str, str] | None = None,
        reserve: Callable[[], ReservedPort] = ReservedPort.reserve,
    ) -> None:
        self._clock = clock
        self._environment = os.environ if environment is None else environment
        self._reserve = reserve
        self._port: ReservedPort | None = None

    async def launch(
        self, spec: EngineSpec, descriptor: EngineDescriptor, model: Path | None, output: OutputLog
    ) -> LocalEngine:
        """Starts the process.

        Raises:
            RequestError: the settings can never work.
            EngineError: the program does not exist.
        """
        port = self._choose_port()
        source = spec.settings.model_source if model is None else str(model)
        launch = descriptor.command(spec, Assignment(port.host, port.number, source))
        process = await ManagedProcess.start(
            launch.command,
            output=output,
            environment=child_environment(self._environment, launch.environment, spec.settings.environment),
        )
        return LocalEngine(process, port.address, self._clock)

    def close(self) -> None:
        """Gives the port back."""
        if self._port is not None:
            self._port.release()
            self._port = None

    def _choose_port(self) -> ReservedPort:
        if self._port is not None and not self._port.is_free:
            self.close()
        self._port = self._port or self._reserve()
        return self._port


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
