"""An engine in a container of docker or podman."""

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from enginehouse.contract import EngineError, Reason
from enginehouse.engines.clock import Clock
from enginehouse.engines.descriptor import Assignment, EngineDescriptor, EngineSpec
from enginehouse.engines.failure import Ending
from enginehouse.engines.inventory import visible_devices
from enginehouse.engines.inventory.accelerator import NVIDIA
from enginehouse.engines.launch.container_command import (
    FILES_FOLDER,
    MODELS_FOLDER,
    RUNTIMES,
    ContainerCommand,
    Mount,
    container_command,
)
from enginehouse.engines.launch.engine import EngineUse
from enginehouse.engines.launch.host import EngineHost
from enginehouse.engines.launch.local import LocalEngine, child_environment
from enginehouse.engines.launch.site import LaunchSite
from enginehouse.engines.ports import ReservedPort
from enginehouse.engines.process import ManagedProcess, OutputLog

_ANYWHERE = "0.0.0.0"  # inside the container alone; the host publishes it on loopback
_HOME = {"HOME": "/tmp"}  # noqa: S108 (inside the container, whose user has no home)
_REMOVE_S = 30.0


class ContainerEngine:
    """A running container, by the client that is attached to it.

    Args:
        client: the runtime's process; it passes signals on and writes what the engine writes.
        runtime, name: to end the container with.
    """

    def __init__(self, client: LocalEngine, runtime: str, name: str, environment: Mapping[str, str]) -> None:
        self.address = client.address
        self._client = client
        self._runtime = runtime
        self._name = name
        self._environment = environment
        self._removal: asyncio.Task[None] | None = None

    async def listening(self) -> None:
        """Returns once something accepts connections at `address`."""
        await self._client.listening()

    async def wait(self) -> Ending:
        """Returns once the client has ended, and with it the container."""
        ending = await self._client.wait()
        await self._remove()
        return ending

    async def stop(self, *, grace_s: float, number: signal.Signals = signal.SIGTERM) -> int | None:
        """Passes the signal on, waits `grace_s` seconds, then removes the container by force."""
        process = self._client.process
        process.send_signal(number)
        try:
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            await self._remove()
        return await self._client.stop(grace_s=1.0)

    def progress(self) -> int:
        """Nothing: its memory is not its client's. What it writes shows its progress."""
        return 0

    async def use(self) -> EngineUse | None:
        """Nothing of the host's memory, which the runtime counts; its accelerators."""
        use = await self._client.use()
        return None if use is None else replace(use, memory_bytes=0)

    async def _remove(self) -> None:
        """Ends the container, whatever became of its client: killing that does not kill it. Once, for all who ask."""
        if self._removal is None:
            self._removal = asyncio.create_task(_removed(self._runtime, self._name, self._environment))
        await asyncio.shield(self._removal)


async def _removed(runtime: str, name: str, environment: Mapping[str, str]) -> None:
    """Asks the runtime to remove a container by force. One that is gone already is no error."""
    remove = await asyncio.create_subprocess_exec(
        *(runtime, "rm", "--force", name),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(environment),
    )
    try:
        async with asyncio.timeout(_REMOVE_S):
            await remove.wait()
    except TimeoutError:
        remove.kill()
        await remove.wait()


class ContainerLauncher:
    """Starts one replica's engine in containers, published on loopback, always at the same port.

    Args:
        clock: for polling.
        environment: what the runtime's client inherits, less our own settings.
        reserve: gives a free port.
        host: its accelerators, and whose engines these are.
        kept: takes the names of containers, so that those of a node that was killed are found again.
    """

    def __init__(
        self,
        clock: Clock,
        environment: Mapping[str, str] | None = None,
        reserve: Callable[[], ReservedPort] = ReservedPort.reserve,
        host: EngineHost | None = None,
        kept: Path | None = None,
    ) -> None:
        self._clock = clock
        self._environment = os.environ if environment is None else environment
        self._host = host or EngineHost()
        self._site = LaunchSite(reserve, self._host)
        self._kept = kept

    async def launch(
        self, spec: EngineSpec, descriptor: EngineDescriptor, model: Path | None, output: OutputLog
    ) -> ContainerEngine:
        """Starts the container.

        Raises:
            RequestError: the settings can never work.
            EngineError: there is no runtime, or the accelerators are somebody else's.
        """
        runtime = _runtime(spec, self._environment)
        source = spec.settings.model_source if model is None else str(model)
        outside = await asyncio.to_thread(self._site.assign, spec, descriptor, source)
        inside, spec, mounts = _inside(outside, spec, model)
        launch = descriptor.command(spec, inside)
        await asyncio.to_thread(self._site.write, launch.files, inside.folder)
        devices = visible_devices([one for one in inside.accelerators if one.vendor != NVIDIA])
        added = {**_HOME, **devices, **launch.environment, **spec.settings.environment}
        name = f"enginehouse-{spec.replica_id}-{secrets.token_hex(4)}"[-200:]
        if self._kept is not None:
            await asyncio.to_thread(_keep, self._kept, runtime, name)
        environment = child_environment(self._environment, added, self._host.marker())
        command = container_command(
            ContainerCommand(
                runtime=runtime,
                image=spec.settings.container.image,
                name=name,
                command=launch.command,
                port=outside.port,
                environment=tuple(added),
                mounts=mounts,
                accelerators=outside.accelerators,
                labels=_labels(spec, self._host),
                arguments=spec.settings.container.arguments,
            )
        )
        process = await ManagedProcess.start(command, output=output, environment=environment)
        client = LocalEngine(process, f"{outside.host}:{outside.port}", self._clock, self._host, outside.accelerators)
        return ContainerEngine(client, runtime, name, environment)

    def close(self) -> None:
        """Gives ports and accelerators back."""
        self._site.close()


def _runtime(spec: EngineSpec, environment: Mapping[str, str]) -> str:
    wanted = spec.settings.container.runtime
    for name in (wanted,) if wanted else RUNTIMES:
        if shutil.which(name, path=environment.get("PATH")) is not None:
            return name
    raise EngineError(
        f"{spec.deployment}: no {wanted or ' or '.join(RUNTIMES)} on PATH; install one on this node, or leave the "
        "container out",
        Reason.ENGINE_FAILED,
    )


def _inside(
    outside: Assignment, spec: EngineSpec, model: Path | None
) -> tuple[Assignment, EngineSpec, tuple[Mount, ...]]:
    """The assignment and the spec as the container sees them, and the mounts that make it so."""
    mounts = [Mount(outside.folder, FILES_FOLDER, is_writable=True)]
    name = outside.model
    if model is not None:
        mounts.append(Mount(model, MODELS_FOLDER / model.name))
        name = str(MODELS_FOLDER / model.name)
    settings = type(spec.settings)()
    settings.CopyFrom(spec.settings)
    for adapter in settings.lora_adapters:
        if (source := Path(adapter.source)).is_absolute():
            target = MODELS_FOLDER / "adapters" / adapter.name
            mounts.append(Mount(source, target))
            adapter.source = str(target)
    inside = replace(outside, host=_ANYWHERE, model=name, folder=Path(FILES_FOLDER))
    return inside, replace(spec, settings=settings), tuple(mounts)


def _labels(spec: EngineSpec, host: EngineHost) -> dict[str, str]:
    labels = {"replica": spec.replica_id, "deployment": spec.deployment, "revision": str(spec.revision)}
    return labels if host.owner is None else {**labels, "owner": str(host.owner)}


def _keep(path: Path, runtime: str, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(f"{runtime} {name}\n")
