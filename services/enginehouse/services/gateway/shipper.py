"""Ships Envoy's access log to control: in order, at least once, and with the truth about what is missing.

`complete_until` of a running Envoy is a moment up to which every line is known to have been shipped: Envoy says how
many lines it has emitted, and that many have been. Of one that has ended in order it is the end of time. With `gap` it
is the last moment at which the Envoy may have been alive: before it lines may be missing, after it there are none.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ParamSpec, Protocol, TypeVar

import grpc
import grpc.aio
import structlog

from enginehouse.contract import DependencyError, EnginehouseError, InternalError
from enginehouse.services.gateway.access_log import AccessLogFolder, AccessLogReader
from enginehouse.services.gateway.admin import AccessLogCounters
from enginehouse.services.server import error_from_rpc
from enginehouse.v1 import ledger_pb2, ledger_pb2_grpc

END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)
_LINES_MAX = 500
_BYTES_MAX = 1024 * 1024
_CALL_TIMEOUT_S = 10.0
_log = structlog.get_logger(__name__)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class LiveLog(Protocol):
    """The running Envoy, as far as its access log goes. Its calls raise DependencyError when it does not answer."""

    async def access_log_counters(self) -> AccessLogCounters:
        """How many lines it has emitted."""
        ...

    async def reopen_logs(self) -> None:
        """Opens the access log anew, after it was renamed."""
        ...


@dataclass(frozen=True, slots=True)
class ShipperSettings:
    """How the log is shipped.

    Args:
        poll_s: pause between two looks at the log.
        report_s: how often control hears up to when the log is complete.
        backoff_s_max: longest pause while control cannot be reached.
        segment_bytes: size at which the log is rotated.
        segments_kept: how many shipped files are kept.
    """

    poll_s: float = 0.5
    report_s: float = 5.0
    backoff_s_max: float = 10.0
    segment_bytes: int = 64 * 1024 * 1024
    segments_kept: int = 4


@dataclass(slots=True)
class _Live:
    start: str
    log: LiveLog
    reader: AccessLogReader
    complete_until: datetime
    reported_at_s: float
    resumed: bool = False
    lines_lost: int = 0
    lines_missing: int = 0


class AccessLogShipper:
    """Ships what is in the folder: logs of starts that have ended, oldest first, then the live one's as it grows.

    Nothing waits in memory: while control is away the files grow, and afterwards they are read from where it says.

    Args:
        folder: the logs.
        ledger: control.
        settings: pauses and sizes.
        now: the time of day, in UTC.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        folder: AccessLogFolder,
        ledger: "ledger_pb2_grpc.LedgerServiceAsyncStub",
        settings: ShipperSettings,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._settings = settings
        self._now = now
        self._monotonic = monotonic
        self._current: str | None = None
        self._live: _Live | None = None
        self._retired: list[AccessLogReader] = []
        self._dead_since: dict[str, datetime] = {}
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()

    def expect(self, start: str) -> None:
        """An Envoy is about to start: its log is neither that of an ended one nor to be shipped yet."""
        self._current = start

    def follow(self, start: str, log: LiveLog) -> None:
        """Ships the log of an Envoy that has just started, and was expected."""
        reader = AccessLogReader(self._folder, start)
        self._live = _Live(start, log, reader, complete_until=self._now(), reported_at_s=self._monotonic())
        self._wake.set()

    def unfollow(self) -> None:
        """The Envoy has ended; whether in order, the folder says. What is left of its log is shipped next."""
        if self._current is not None:
            self._dead_since[self._current] = self._now()
        if self._live is not None:
            self._retired.append(self._live.reader)  # which may be reading just now
        self._current = self._live = None
        self._wake.set()

    async def run(self) -> None:
        """Ships for ever. That control cannot be reached is logged once, and waited out."""
        failures = 0
        while True:
            try:
                await self.ship()
                if failures:
                    _log.info("access log is shipped again")
                failures = 0
            except EnginehouseError as error:
                if failures == 0:
                    _log.warning("access log is not shipped", error=error.message)
                failures = min(failures + 1, 16)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._settings.poll_s * 2.0**failures, self._settings.backoff_s_max)):
                    await self._wake.wait()
            self._wake.clear()

    async def ship(self) -> None:
        """Ships everything that is there now.

        Raises:
            DependencyError: control does not answer.
            EnginehouseError: control refused a log; the other logs have been shipped.
        """
        async with self._turn:
            while self._retired:
                self._retired.pop().close()
            live, refusal = self._live, None
            for start in await _in_thread(self._folder.unshipped):
                if start == self._current:
                    continue
                try:
                    await self._ship_ended(start)
                except DependencyError:
                    raise
                except EnginehouseError as error:
                    refusal = error
            if live is not None:
                await self._ship_live(live)
            await _in_thread(
                self._folder.prune,
                self._current,
                live.reader.next_line if live else 0,
                self._settings.segments_kept,
            )
            if refusal is not None:
                raise refusal

    async def _ship_ended(self, start: str) -> None:
        in_order = self._folder.is_complete(start)
        until = END_OF_TIME if in_order else self._dead_since.setdefault(start, self._now())
        reader = AccessLogReader(self._folder, start)
        try:
            await self._resume(start, reader)
            await self._ship_lines(start, reader, None)
            await self._send(start, reader.next_line, [], until, gap=not in_order)
        finally:
            reader.close()
        await _in_thread(self._folder.mark_shipped, start)
        self._dead_since.pop(start, None)

    async def _ship_live(self, live: _Live) -> None:
        if not live.resumed:
            await self._resume(live.start, live.reader)
            live.resumed = True
        now = self._now()
        counters = await _counters(live.log)
        try:
            await self._ship_lines(live.start, live.reader, live.complete_until)
            if counters is not None:
                await self._report(live, now, counters)
        except EnginehouseError:
            live.resumed = False  # control may have taken it in: ask where to go on
            raise
        if live.reader.segment_bytes >= self._settings.segment_bytes:
            await _in_thread(self._folder.rotate, live.start, live.reader.segment_first_line)
            with suppress(DependencyError):  # then the next turn asks again
                await live.log.reopen_logs()

    async def _report(self, live: _Live, now: datetime, counters: AccessLogCounters) -> None:
        missing = counters.emitted_lines - live.lines_lost - live.reader.next_line
        if missing <= 0:
            live.lines_missing = 0
            live.complete_until = now
            if self._monotonic() - live.reported_at_s < self._settings.report_s:
                return
            await self._send(live.start, live.reader.next_line, [], now, gap=False)
            live.reported_at_s = self._monotonic()
            return
        if counters.buffered_bytes:
            return  # they are on their way
        # Nothing is on its way and the file lacks them: a full disk. Twice, because Envoy counts and writes apart.
        lost, live.lines_missing = min(missing, live.lines_missing), missing
        if lost:
            _log.error("access log has lost lines; is the disk full?", start=live.start, lines=lost)
            await self._send(live.start, live.reader.next_line, [], now, gap=True)
            live.lines_lost += lost

    async def _resume(self, start: str, reader: AccessLogReader) -> None:
        wanted = await self._send(start, 0, [], None, gap=False)
        await _in_thread(reader.seek, wanted)

    async def _ship_lines(self, start: str, reader: AccessLogReader, until: datetime | None) -> None:
        while True:
            first_line = reader.next_line
            lines = await _in_thread(reader.read, lines_max=_LINES_MAX, bytes_max=_BYTES_MAX)
            if not lines:
                return
            wanted = await self._send(start, first_line, lines, until, gap=False)
            if wanted <= first_line:
                raise InternalError(f"control has not taken in line {first_line} of {start}: it wants line {wanted}")
            if wanted != reader.next_line:
                await _in_thread(reader.seek, wanted)

    async def _send(
        self, start: str, first_line: int, lines: Sequence[str], until: datetime | None, *, gap: bool
    ) -> int:
        request = ledger_pb2.ShipAccessLogRequest(envoy=start, first_line=first_line, lines=lines, gap=gap)
        if until is not None:
            request.complete_until.FromDatetime(until)
        try:
            answer = await self._ledger.ShipAccessLog(request, timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        return answer.next_line


async def _counters(log: LiveLog) -> AccessLogCounters | None:
    try:
        return await log.access_log_counters()
    except DependencyError:  # it is ending; whoever runs it sees that
        return None


async def _in_thread(
    function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result:
    """As asyncio.to_thread, but a cancelled caller waits for the thread: it must not go on using files behind us."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
