"""The gRPC port of an emulator."""

import grpc

from enginehouse.contract import InternalError
from enginehouse.engines.emulators.core.emulation import Emulation
from enginehouse.engines.emulators.core.front import Front

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
    # As vLLM's server sets it: keepalive no faster than this, and also between requests.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class GrpcFront(Front):
    """A gRPC server.

    Raises:
        RequestError: the engine has no gRPC face.
        DependencyError: its protos are not installed.
    """

    def __init__(self, emulation: Emulation) -> None:
        self._options = emulation.options
        self._face = emulation.grpc_face()
        self._server: grpc.aio.Server | None = None

    async def open(self) -> int:
        """Opens the port; its number."""
        server = grpc.aio.server(options=_OPTIONS)
        self._face.add_to(server)
        number = server.add_insecure_port(f"{self._options.host}:{self._options.port}")
        if number == 0:
            raise InternalError(f"cannot listen on {self._options.host}:{self._options.port}; choose another port")
        await server.start()
        self._server = server
        return number

    async def refuse_connections(self) -> None:
        """Nothing: the engine's phase says NOT_SERVING and refuses new calls; those at work go on."""

    async def close(self) -> None:
        """Cuts what is left."""
        if self._server is not None:
            await self._server.stop(grace=0)
            self._server = None
