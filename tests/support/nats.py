"""A real nats-server on loopback that can be killed and started again in place."""

import socket
from pathlib import Path

from enginehouse.engines.process import ManagedProcess, OutputLog
from enginehouse.services.local.servers import find_nats_server
from tests.support.waiting import until


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class NatsServer:
    """nats-server with JetStream in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._output = OutputLog(folder / "nats.log")
        self._process: ManagedProcess | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts the server and waits until it takes connections."""
        binary = str(find_nats_server())
        store = str(self._folder / "store")
        command = [binary, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", store]
        seen = len(self._output.lines(10_000))
        self._process = await ManagedProcess.start(command, output=self._output)
        await until(
            lambda: any("Server is ready" in line for line in self._output.lines(10_000)[seen:]), "nats-server ready"
        )

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill_group()
            await self._process.stop(grace_s=0)
            self._process = None

    async def close(self) -> None:
        """Ends the server for good."""
        await self.kill()
        self._output.close()
