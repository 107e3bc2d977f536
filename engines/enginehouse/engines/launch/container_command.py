"""The command line that runs an engine in a container: pure, so that every word of it can be tested."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from enginehouse.contract import EngineError, Reason, RequestError
from enginehouse.engines.inventory import Accelerator
from enginehouse.engines.inventory.accelerator import AMD, GOOGLE, NVIDIA

RUNTIMES = ("docker", "podman")
LABEL = "enginehouse"
MODELS_FOLDER = PurePosixPath("/models")
FILES_FOLDER = PurePosixPath("/run/enginehouse")
# The processes of one replica talk over shared memory; 64 MB, which runtimes give, is too little (vLLM, NCCL).
_SHARED_MEMORY = "8g"


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of the host inside the container."""

    source: Path
    target: PurePosixPath
    is_writable: bool = False

    def __str__(self) -> str:
        """As `--mount` takes it."""
        return f"type=bind,source={self.source},target={self.target}" + ("" if self.is_writable else ",readonly")


@dataclass(frozen=True, slots=True)
class ContainerCommand:
    """One container that is to run.

    Args:
        runtime: the runtime's program.
        image: with its tag.
        name: of the container.
        command: program and arguments inside.
        port: of the engine; the same inside, and on the host's loopback.
        environment: names alone are on the command line: values would be seen by every user of the host.
        mounts: what of the host it sees.
        accelerators: its own.
        labels: by which it is found, without the prefix.
        arguments: the operator's own, for `run`.
        user: user and group id. It is never root unless the node is.
    """

    runtime: str
    image: str
    name: str
    command: Sequence[str]
    port: int
    environment: Sequence[str] = ()
    mounts: Sequence[Mount] = ()
    accelerators: Sequence[Accelerator] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    user: str = field(default_factory=lambda: f"{os.getuid()}:{os.getgid()}")


def container_command(container: ContainerCommand) -> tuple[str, ...]:
    """The whole command line. The container ends with its client, and is gone when it has ended.

    Raises:
        RequestError: a mount cannot be written down, or the runtime is none that we know.
        EngineError: the accelerators cannot be given to a container.
    """
    runtime = PurePosixPath(container.runtime).name
    if runtime not in RUNTIMES:
        raise RequestError(f"container runtime {container.runtime!r}: use {' or '.join(RUNTIMES)}")
    for mount in container.mounts:
        if "," in f"{mount.source}{mount.target}":
            raise RequestError(f"{mount.source} has a comma in its path and cannot be mounted; move or rename it")
    program, *arguments = container.command
    labels = (f"{LABEL}.{name}={value}" for name, value in sorted(container.labels.items()))
    return (
        *(container.runtime, "run", "--rm", "--init", "--name", container.name),
        *_each("--label", labels),
        *("--publish", f"127.0.0.1:{container.port}:{container.port}/tcp"),
        *("--user", container.user, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--shm-size", _SHARED_MEMORY, "--log-driver", "none"),
        *_devices(runtime, container.accelerators),
        *_each("--mount", map(str, container.mounts)),
        *_each("--env", sorted(container.environment)),
        *container.arguments,
        *("--entrypoint", program, container.image),
        *arguments,
    )


def _devices(runtime: str, accelerators: Sequence[Accelerator]) -> tuple[str, ...]:
    if not accelerators:
        return ()
    vendor = accelerators[0].vendor
    ids = [one.id if one.is_partition else str(one.index) for one in accelerators]
    if vendor == NVIDIA and runtime == "docker":
        return ("--gpus", f'"device={",".join(ids)}"')  # the quotes are the runtime's: it reads a line of CSV
    if vendor == NVIDIA:
        return _each("--device", (f"nvidia.com/gpu={one}" for one in ids))  # Container Device Interface
    if vendor == AMD:  # which of them it sees, HIP_VISIBLE_DEVICES says
        return ("--device", "/dev/kfd", "--device", "/dev/dri", "--group-add", "video", "--group-add", "render")
    if vendor == GOOGLE:
        return _each("--device", (f"/dev/accel{one.index}" for one in accelerators))
    raise EngineError(f"accelerators of {vendor} cannot be given to a container", Reason.ENGINE_FAILED)


def _each(option: str, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (option, value))
