"""An engine that somebody else runs, reached by its URL. It is probed like any other and never started or stopped."""

import asyncio
import signal
from pathlib import Path
from urllib.parse import urlsplit

from enginehouse.contract import RequestError
from enginehouse.engines.clock import Clock
from enginehouse.engines.descriptor import EngineDescriptor, EngineSpec
from enginehouse.engines.failure import Ending
from enginehouse.engines.launch.local import accepts
from enginehouse.engines.process import OutputLog

_PORT_POLL_S = 0.25


def attached_address(spec: EngineSpec) -> str:
    """host:port of the engine at the spec's `external_url`.

    Raises:
        RequestError: the URL is not of the form http://host:port.
    """
    url = spec.settings.external_url
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise RequestError(f"{spec.deployment}: external_url {url!r}: {error}") from error
    is_base = parts.path.rstrip("/") in ("", "/v1") and not parts.query and not parts.fragment
    if parts.scheme != "http" or not parts.hostname or parts.username is not None or not is_base:
        raise RequestError(
            f"{spec.deployment}: external_url {url!r} cannot be used; write http://host:port. For an engine behind TLS "
            "put a local proxy before it"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"


class AttachedEngine:
    """An engine that we do not own."""

    def __init__(self, address: str, clock: Clock) -> None:
        self.address = address
        self._clock = clock

    async def listening(self) -> None:
        """Returns once something accepts connections at `address`."""
        host, _, port = self.address.rpartition(":")
        while not await accepts(host.strip("[]"), int(port)):
            await self._clock.sleep(_PORT_POLL_S)

    async def wait(self) -> Ending:
        """Never returns: nobody tells us when it ends. Probes find out."""
        never: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        return await never

    async def stop(self, *, grace_s: float, number: signal.Signals = signal.SIGTERM) -> None:
        """Lets go of it. It keeps running."""


class AttachedLauncher:
    """Attaches to the engine at the spec's `external_url`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def launch(
        self,
        spec: EngineSpec,
        descriptor: EngineDescriptor,
        model: Path | None,
        output: OutputLog,
    ) -> AttachedEngine:
        """Attaches. Nothing is started.

        Raises:
            RequestError: the URL cannot be used.
        """
        return AttachedEngine(attached_address(spec), self._clock)

    def close(self) -> None:
        """Nothing is held."""
