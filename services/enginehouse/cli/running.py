"""Finds the mesh that runs in a state folder, and opens connections to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from enginehouse.contract import DependencyError
from enginehouse.services.local import StateFolder
from enginehouse.services.server import error_from_rpc
from enginehouse.services.settings import Settings, load


@dataclass(frozen=True, slots=True)
class RunningMesh:
    """A mesh on this machine, as its own settings file describes it.

    Attributes:
        settings: with every port chosen.
        state: its folder.
    """

    settings: Settings
    state: StateFolder

    @property
    def door(self) -> str:
        """host:port of Envoy."""
        return f"{self.settings.host}:{self.settings.door.port}"

    @property
    def nats_url(self) -> str:
        """Where the event plane is."""
        return f"nats://{self.settings.host}:{self.settings.nats.port}"

    @property
    def router(self) -> str:
        """host:port of the first router's gRPC server."""
        return f"{self.settings.host}:{self.settings.routers[0].grpc_port}"

    @property
    def operator(self) -> str:
        """The admin API for whoever may read the state folder: no key is needed."""
        return f"unix:{self.state.control_socket}"

    def process_id(self, name: str) -> int | None:
        """The process id of a member of the mesh, for example "node-eu-de"."""
        return self.state.processes().get(name)


def find_mesh(state: Path) -> RunningMesh:
    """The mesh that runs in `state`.

    Raises:
        DependencyError: none does.
    """
    folder = StateFolder(state)
    if not folder.is_in_use:
        raise DependencyError(
            f"no mesh runs in {folder.path}; start one with `enginehouse up`, or name its folder with --state"
        )
    return RunningMesh(load(folder.settings_file), folder)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turns the errors of gRPC calls into ours."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error
