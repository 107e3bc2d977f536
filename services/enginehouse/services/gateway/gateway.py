"""The gateway process: one Envoy at a time, started again when it dies, its access log on the way to control."""

import asyncio
import fcntl
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import structlog

from enginehouse.contract import DependencyError, EnginehouseError
from enginehouse.services.gateway.access_log import AccessLogFolder
from enginehouse.services.gateway.binary import find_envoy
from enginehouse.services.gateway.configuration import EnvoyStart
from enginehouse.services.gateway.envoy import Envoy
from enginehouse.services.gateway.output import EnvoyOutput
from enginehouse.services.gateway.settings import GatewaySettings
from enginehouse.services.gateway.shipper import AccessLogShipper, ShipperSettings
from enginehouse.services.server import channel
from enginehouse.v1 import ledger_pb2_grpc

_BACKOFF_S = 0.1
_BACKOFF_S_MAX = 10.0
_STABLE_S = 60.0
_LAST_SHIPMENT_S = 5.0
_log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


def backoff_s(failures: int) -> float:
    """Seconds to wait after the `failures`-th short-lived start in a row."""
    return min(_BACKOFF_S * 2.0 ** min(failures - 1, 32), _BACKOFF_S_MAX)


class Gateway:
    """Runs Envoy until it is told to stop. Started and stopped once, or `run`.

    Args:
        settings: addresses, bounds, folders.
        shipping: how the access log is shipped. None: as `settings` says.
        now: the time of day, in UTC.
        monotonic: seconds that never go back.
        unique: makes the part of a start's id that never repeats.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        shipping: ShipperSettings | None = None,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        unique: Callable[[], str] = lambda: secrets.token_hex(4),
    ) -> None:
        self._settings = settings
        self._shipping = shipping or ShipperSettings(
            segment_bytes=settings.access_log_segment_bytes, segments_kept=settings.access_log_segments_kept
        )
        self._now = now
        self._monotonic = monotonic
        self._unique = unique
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._envoy: Envoy | None = None
        self.ready = asyncio.Event()
        """Set while Envoy takes requests."""
        self.restarts = 0
        """How often Envoy was started again after it had died."""

    @property
    def envoy_pid(self) -> int | None:
        """Envoy's process id, while one takes requests."""
        return self._envoy.pid if self._envoy else None

    @property
    def envoy_start(self) -> str | None:
        """The running Envoy's start id: its node id, and the `envoy` of its shipped access log."""
        return self._envoy.start_id if self._envoy else None

    async def run(self) -> None:
        """Runs until `stop` is called, or until it is cancelled; raises what `start` raises."""
        try:
            await self.start()
            if self._running is not None:
                await asyncio.wait({self._running})
        finally:
            await self.stop()

    async def start(self) -> None:
        """Starts Envoy and returns when it takes requests.

        Raises:
            DependencyError: Envoy is not installed or does not start (its port is in use, for example), or another
                gateway uses the state folder.
        """
        self._running = asyncio.create_task(self._run(), name="gateway")
        ready = asyncio.create_task(self.ready.wait())
        try:
            await asyncio.wait({self._running, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._running.done():
            await self._running
        self._running.add_done_callback(_report_failure)

    async def stop(self) -> None:
        """Drains Envoy and ends it: requests in flight have the settings' grace to end."""
        self._stopping.set()
        if self._running is not None:
            await asyncio.wait({self._running})

    async def _run(self) -> None:
        settings = self._settings
        program = find_envoy(settings.envoy)
        settings.state_folder.mkdir(parents=True, exist_ok=True)
        with _sole_user(settings.state_folder):
            folder = AccessLogFolder(settings.state_folder / "access-log")
            output = EnvoyOutput(settings.state_folder / "envoy.log")
            try:
                async with aiohttp.ClientSession() as session, self._shipping_to_control(folder) as shipper:
                    await self._supervise(_Surroundings(program, folder, output, session, shipper))
            finally:
                output.close()

    async def _supervise(self, around: "_Surroundings") -> None:
        failures = 0
        while not self._stopping.is_set():
            start_id = f"{self._settings.id}-{self._now():%Y%m%dT%H%M%S}-{self._unique()}"
            began_s = self._monotonic()
            around.shipper.expect(start_id)
            try:
                envoy = await self._start(start_id, around)
                if await self._watch(envoy, around):
                    return
            except DependencyError as error:
                if self.restarts == 0:
                    raise
                _log.error("envoy does not start", error=error.message)
            finally:
                around.shipper.unfollow()
            failures = 1 if self._monotonic() - began_s >= _STABLE_S else failures + 1
            self.restarts += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff_s(failures)):
                    await self._stopping.wait()

    async def _start(self, start_id: str, around: "_Surroundings") -> Envoy:
        start = EnvoyStart(start_id, around.folder.current_path(start_id))
        try:
            return await Envoy.start(
                around.program, self._settings, start, output=around.output, session=around.session
            )
        except BaseException:
            around.folder.discard_empty(start_id)
            raise

    async def _watch(self, envoy: Envoy, around: "_Surroundings") -> bool:
        """Until Envoy dies, which gives False, or has been stopped."""
        self._envoy = envoy
        around.shipper.follow(envoy.start_id, envoy.admin)
        self.ready.set()
        _log.info("envoy is ready", start=envoy.start_id, pid=envoy.pid, listen=str(self._settings.listen))
        ended = asyncio.create_task(envoy.wait())
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Also when this task is cancelled: Envoy must not outlive it, nor end unrecorded.
            self.ready.clear()
            self._envoy = None
            died = ended.done()
            if died:
                _log.error("envoy died", start=envoy.start_id, exit_code=ended.result())
            ended.cancel()
            stopped.cancel()
            in_order = await envoy.stop(grace_s=self._settings.drain_grace_s)
            if in_order and not died:
                around.folder.mark_complete(envoy.start_id)
        return not died

    @asynccontextmanager
    async def _shipping_to_control(self, folder: AccessLogFolder) -> AsyncIterator[AccessLogShipper]:
        async with channel(str(self._settings.control)) as control:
            ledger = ledger_pb2_grpc.LedgerServiceStub(control)
            shipper = AccessLogShipper(folder, ledger, self._shipping, now=self._now, monotonic=self._monotonic)
            task = asyncio.create_task(shipper.run(), name="ship access log")
            try:
                yield shipper
            finally:
                task.cancel()
                await asyncio.wait({task})
                try:  # what does not go now goes when the gateway runs again
                    async with asyncio.timeout(_LAST_SHIPMENT_S):
                        await shipper.ship()
                except (EnginehouseError, TimeoutError) as error:
                    _log.warning("the end of the access log is not shipped yet", error=str(error))


def _report_failure(task: "asyncio.Task[None]") -> None:
    # Whoever runs processes listens to this handler and ends them: a gateway without its Envoy is of no use.
    if not task.cancelled() and task.exception() is not None:
        context = {"message": "the gateway failed", "exception": task.exception(), "task": task}
        task.get_loop().call_exception_handler(context)


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What outlives a start of Envoy."""

    program: Path
    folder: AccessLogFolder
    output: EnvoyOutput
    session: aiohttp.ClientSession
    shipper: AccessLogShipper


@contextmanager
def _sole_user(folder: Path) -> Iterator[None]:
    with (folder / "gateway.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DependencyError(
                f"another gateway uses {folder}: stop it, or give this one a state folder of its own"
            ) from None
        yield
