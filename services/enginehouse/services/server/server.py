"""A gRPC server with what all of ours have: error statuses, health, reflection, and an orderly end."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # pyright: ignore[reportAttributeAccessIssue] (conditional)
from grpc_reflection.v1alpha import reflection

from enginehouse.contract import DependencyError
from enginehouse.services.server.errors import ErrorInterceptor
from enginehouse.services.server.options import SERVER_OPTIONS

_SOCKET_PATH_BYTES_MAX = 107  # sockaddr_un, less the closing zero

_Servicer = TypeVar("_Servicer")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a server listens: on a TCP port, on a Unix socket, or on both.

    Attributes:
        host: address to bind.
        port: 0 takes a free one. None: not on TCP.
        socket_path: made with mode 0600, for this user alone. None: no Unix socket.
    """

    host: str = "127.0.0.1"
    port: int | None = 0
    socket_path: Path | None = None


class GrpcServer:
    """One grpc.aio server. Add the services, start it, stop it once.

    Args:
        listen: where.
        interceptors: run inside the one that maps errors, so they may raise ours.
    """

    def __init__(self, listen: Listen, *, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
        self._listen = listen
        self._server = grpc.aio.server(interceptors=[ErrorInterceptor(), *interceptors], options=SERVER_OPTIONS)
        self._health = health_aio.HealthServicer()
        self._names: list[str] = []
        self.port = 0

    def add(self, name: str, add_to_server: Callable[[_Servicer, grpc.aio.Server], None], servicer: _Servicer) -> None:
        """Adds a service before the start.

        Args:
            name: full name of the service, for health checks and reflection.
            add_to_server: the generated ``add_<Service>Servicer_to_server``.
            servicer: the implementation; its methods must be ``async``.
        """
        add_to_server(servicer, self._server)
        self._names.append(name)

    def add_handler(self, handler: grpc.GenericRpcHandler) -> None:
        """Adds methods under a name that is not ours, before the start."""
        self._server.add_generic_rpc_handlers((handler,))

    async def start(self) -> int:
        """Binds, starts to serve, and returns the TCP port; 0 without TCP.

        Raises:
            DependencyError: an address cannot be bound.
        """
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server)
        if self._listen.port is not None:
            self.port = self._bind(f"{_bracketed(self._listen.host)}:{self._listen.port}")
        if self._listen.socket_path is not None:
            self._bind_socket(self._listen.socket_path)
        await self._server.start()
        for name in names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self.port

    async def stop(self, *, grace_s: float) -> None:
        """Takes no more calls, tells health checks so, and waits up to `grace_s` seconds for those that run."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        if self._listen.socket_path is not None:
            self._listen.socket_path.unlink(missing_ok=True)

    async def wait(self) -> None:
        """Waits until the server has stopped."""
        await self._server.wait_for_termination()

    def _bind(self, address: str) -> int:
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise DependencyError(
                f"cannot listen on {address}: it is in use, or not an address of this machine; choose another"
            ) from error
        return port

    def _bind_socket(self, path: Path) -> None:
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES_MAX:
            raise DependencyError(
                f"cannot listen on {path}: a Unix socket's path has at most {_SOCKET_PATH_BYTES_MAX} bytes; "
                "choose a shorter folder"
            )
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mask = os.umask(0o177)  # gRPC binds and listens at once: a chmod would come after the first connection
        try:
            self._bind(f"unix:{path}")
        finally:
            os.umask(mask)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
