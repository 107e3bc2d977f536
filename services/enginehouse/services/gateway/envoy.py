"""One start of Envoy, from the command line to the last line of its access log."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Self

import aiohttp

from enginehouse.contract import DependencyError
from enginehouse.engines.process import ManagedProcess
from enginehouse.services.gateway.admin import EnvoyAdmin
from enginehouse.services.gateway.configuration import EnvoyStart, render
from enginehouse.services.gateway.output import EnvoyOutput
from enginehouse.services.gateway.settings import GatewaySettings

START_TIMEOUT_S = 30.0
_POLL_S = 0.05
_TERM_GRACE_S = 5.0
_DRAIN_S = 1
_FLUSH_INTERVAL_MS = 50


class Envoy:
    """A running Envoy. Made by `start`."""

    def __init__(self, start: EnvoyStart, process: ManagedProcess, admin: EnvoyAdmin) -> None:
        self.start_id = start.id
        self.admin = admin
        self._process = process

    @classmethod
    async def start(
        cls,
        program: Path,
        settings: GatewaySettings,
        start: EnvoyStart,
        *,
        output: EnvoyOutput,
        session: aiohttp.ClientSession,
    ) -> Self:
        """Starts Envoy and waits until it takes requests.

        Raises:
            DependencyError: it ended, or was not ready in time; the message has Envoy's own reason.
        """
        configuration = settings.state_folder / "envoy.yaml"
        admin_address = settings.state_folder / "envoy-admin-address"
        await asyncio.to_thread(configuration.write_text, render(settings, start))
        await asyncio.to_thread(admin_address.unlink, missing_ok=True)
        command = [
            *(str(program), "--config-path", str(configuration), "--concurrency", str(settings.concurrency)),
            *("--admin-address-path", str(admin_address), "--disable-hot-restart"),
            # By default a kill loses whatever was logged in the last 10 s.
            *("--file-flush-interval-msec", str(_FLUSH_INTERVAL_MS), "--file-flush-min-size-kb", "0"),
            # Draining: answers say "connection: close" at once, and a second later the port is closed.
            *("--drain-time-s", str(_DRAIN_S), "--drain-strategy", "immediate"),
            # "misc" only repeats that extensions are work in progress.
            *("--log-level", "warning", "--component-log-level", "misc:error"),
        ]
        process = await ManagedProcess.start(command, output=output)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                port = await _admin_port(admin_address, process)
                envoy = cls(start, process, EnvoyAdmin(port, session))
                await envoy._wait_ready()
        except TimeoutError:
            await process.stop(grace_s=0)
            raise DependencyError(f"Envoy was not ready after {START_TIMEOUT_S:g} s: see {output.path}") from None
        except BaseException:
            await process.stop(grace_s=0)
            raise
        return envoy

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Waits for its end and returns the exit code, negative for a signal."""
        return await self._process.wait()

    async def stop(self, *, grace_s: float) -> bool:
        """Closes the port, waits up to `grace_s` seconds for requests in flight, and ends it.

        Returns:
            Whether it ended in order, so that its access log is complete. Requests that the grace cut off are in the
            log too; only after SIGKILL it lacks something.
        """
        with suppress(DependencyError, TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.admin.drain()
                await self._wait_idle()
        return await self._process.stop(grace_s=_TERM_GRACE_S) == 0

    async def _wait_ready(self) -> None:
        while True:
            _raise_if_ended(self._process)
            with suppress(DependencyError):
                if await self.admin.is_ready():
                    return
            await asyncio.sleep(_POLL_S)

    async def _wait_idle(self) -> None:
        while True:
            if await self.admin.requests_in_flight() == 0:
                return
            await asyncio.sleep(_POLL_S)


async def _admin_port(address: Path, process: ManagedProcess) -> int:
    while True:
        _raise_if_ended(process)
        text = await asyncio.to_thread(_text, address)
        if text:
            return int(text.rpartition(":")[2])
        await asyncio.sleep(_POLL_S)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _raise_if_ended(process: ManagedProcess) -> None:
    if process.exit_code is None:
        return
    errors = [line for line in process.output.lines(20) if "[critical]" in line]
    reason = errors[-1].rpartition("] ")[2] if errors else "it gave no reason"
    hint = "stop what uses that port, or set another" if "in use" in reason else f"see {process.output.path}"
    raise DependencyError(f"Envoy ended with exit code {process.exit_code} before it was ready: {reason}; {hint}")
