"""The command line that runs an engine in a container, word by word."""

from pathlib import Path, PurePosixPath

import pytest

from enginehouse.contract import EngineError, RequestError
from enginehouse.engines import Accelerator
from enginehouse.engines.launch.container_command import ContainerCommand, Mount, container_command
from enginehouse.v1 import common_pb2


def accelerators(vendor: str, *indexes: int) -> list[Accelerator]:
    return [Accelerator(f"{vendor}-{n}", n, common_pb2.CHIP_CLASS_GPU, vendor, "any", 1) for n in indexes]


def container(runtime: str = "docker", **members: object) -> ContainerCommand:
    given = {"image": "vllm/vllm-openai:v0.32", "name": "enginehouse-a-1", "command": ("vllm", "serve"), "port": 4242}
    return ContainerCommand(runtime=runtime, **{**given, "user": "7:8", **members})  # type: ignore[arg-type]


def test_whole_command_line() -> None:
    command = container_command(
        container(
            command=("vllm", "serve", "/models/m", "--port", "4242"),
            environment=("OMP_NUM_THREADS", "HOME"),
            mounts=(
                Mount(Path("files"), PurePosixPath("/run/enginehouse"), is_writable=True),
                Mount(Path("cache/m"), PurePosixPath("/models/m")),
            ),
            accelerators=accelerators("nvidia", 0, 3),
            labels={"replica": "a", "owner": "folder|1|2"},
            arguments=("--network", "isolated"),
        )
    )
    assert command == (
        *("docker", "run", "--rm", "--init", "--name", "enginehouse-a-1"),
        *("--label", "enginehouse.owner=folder|1|2", "--label", "enginehouse.replica=a"),
        *("--publish", "127.0.0.1:4242:4242/tcp"),
        *("--user", "7:8", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--shm-size", "8g", "--log-driver", "none"),
        *("--gpus", '"device=0,3"'),
        *("--mount", "type=bind,source=files,target=/run/enginehouse"),
        *("--mount", "type=bind,source=cache/m,target=/models/m,readonly"),
        *("--env", "HOME", "--env", "OMP_NUM_THREADS"),
        *("--network", "isolated"),
        *("--entrypoint", "vllm", "vllm/vllm-openai:v0.32"),
        *("serve", "/models/m", "--port", "4242"),
    )


@pytest.mark.parametrize(
    ("runtime", "vendor", "expected"),
    [
        ("podman", "nvidia", ("--device", "nvidia.com/gpu=1", "--device", "nvidia.com/gpu=2")),
        ("docker", "amd", ("--device", "/dev/kfd", "--device", "/dev/dri", "--group-add", "video")),
        ("podman", "google", ("--device", "/dev/accel1", "--device", "/dev/accel2")),
    ],
)
def test_accelerators_are_given_as_runtime_and_vendor_have_it(
    runtime: str, vendor: str, expected: tuple[str, ...]
) -> None:
    command = container_command(container(runtime, accelerators=accelerators(vendor, 1, 2)))
    begin = command.index(expected[0])
    assert command[begin : begin + len(expected)] == expected


def test_partition_is_given_by_its_id() -> None:
    part = Accelerator("MIG-1", 0, common_pb2.CHIP_CLASS_GPU, "nvidia", "a100", 1, is_partition=True)
    assert '"device=MIG-1"' in container_command(container(accelerators=[part]))


def test_container_without_accelerators_is_given_no_device() -> None:
    assert not {"--gpus", "--device", "--privileged"} & set(container_command(container()))


def test_values_of_variables_are_not_on_the_command_line() -> None:
    words = container_command(container(environment=("HF_TOKEN",)))
    assert not [word for word in words if word.startswith("HF_TOKEN=")]


def test_what_cannot_be_written_down_is_refused() -> None:
    with pytest.raises(RequestError, match="has a comma in its path"):
        container_command(container(mounts=[Mount(Path("a,b"), PurePosixPath("/models/a"))]))
    with pytest.raises(RequestError, match="use docker or podman"):
        container_command(container("runc"))
    with pytest.raises(EngineError, match="accelerators of apple cannot be given"):
        container_command(container(accelerators=accelerators("apple", 0)))
