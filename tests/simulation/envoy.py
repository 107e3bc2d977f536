"""A simulated Envoy and the gateway beside it: it asks, forwards, logs twice, and dies with what it had not written."""

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

import grpc

from enginehouse.contract import EnginehouseError
from enginehouse.router import Request
from enginehouse.services.access_log import read_line, ticket_text
from enginehouse.services.gateway.admin import AccessLogCounters
from enginehouse.services.gateway.shipper import AccessLogShipper, ShipperSettings
from enginehouse.v1 import common_pb2, router_pb2
from tests.simulation.control import CONTROL
from tests.simulation.engines import Engines
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import Network, Stub
from tests.simulation.scene import EPOCH_MS
from tests.simulation.truth import Truth, Work

_CHECK_TIMEOUT_S = 1.0
_FLUSH_S = 0.05
_POLL_S, _BACKOFF_S_MAX = 2.0, 4.0
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(slots=True)
class Log:
    """The log of one start of Envoy: what is on disk, and what is not yet."""

    lines: list[str] = field(default_factory=list)
    buffered: list[tuple[str, Work | None]] = field(default_factory=list)
    emitted: int = 0
    is_shipped: bool = False

    async def access_log_counters(self) -> AccessLogCounters:
        """As the shipper asks Envoy for them."""
        return AccessLogCounters(self.emitted, sum(len(line) for line, _ in self.buffered))

    async def reopen_logs(self) -> None:
        """Nothing is ever rotated here."""


class Folder:
    """`AccessLogFolder` in memory."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}

    def unshipped(self) -> list[str]:
        """Starts of which control may lack something, oldest first."""
        return [start for start, log in self.logs.items() if not log.is_shipped]

    def is_complete(self, start: str) -> bool:
        """An Envoy is only ever killed here."""
        return False

    def mark_shipped(self, start: str) -> None:
        """Control has all of it."""
        self.logs[start].is_shipped = True

    def prune(self, live: str | None, acknowledged_line: int, kept: int) -> None:
        """Nothing is deleted."""


class Reader:
    """`AccessLogReader` over a folder in memory."""

    segment_first_line = 0
    segment_bytes = 0

    def __init__(self, folder: Folder, start: str) -> None:
        self._log = folder.logs[start]
        self.next_line = 0

    def seek(self, line: int) -> None:
        """Makes `line` the next one."""
        self.next_line = min(line, len(self._log.lines))

    def read(self, *, lines_max: int, bytes_max: int) -> list[str]:
        """The next lines that are on disk."""
        lines = self._log.lines[self.next_line : self.next_line + lines_max]
        self.next_line += len(lines)
        return lines

    def close(self) -> None:
        """There is nothing to close."""


async def in_line(
    function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result:
    """Stands in for a thread."""
    return function(*args, **kwargs)


class EnvoyHouse:
    """One Envoy after the other, and the gateway that ships their logs."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        network: Network,
        rng: random.Random,
        truth: Truth,
        engines: Engines,
        routers: list[str],
        report_s: float,
    ) -> None:
        self.name = name
        self.folder = Folder()
        self.start = ""
        self.process = Process(name)
        self.process.is_dead = True
        self._loop = loop
        self._network = network
        self._rng = rng
        self._truth = truth
        self._engines = engines
        self._routers = routers
        self._starts = 0
        self._skew_s = rng.uniform(-0.5, 0.5)
        self._gateway = Process(f"gateway-{name}")
        self._gateway.context.run(self._open_gateway, report_s)

    def boot(self) -> None:
        """Starts an Envoy."""
        self._starts += 1
        self.start = f"{self.name}-{self._starts}"
        self.process = Process(self.start)
        log = self.folder.logs[self.start] = Log()
        self._gateway.context.run(self._shipper.expect, self.start)
        self._gateway.context.run(self._shipper.follow, self.start, log)
        for router in self._routers:
            self.connect(router)

    def connect(self, router: str) -> None:
        """Asks a router for endpoints, by which it learns that this Envoy is there."""
        if not self.process.is_dead:
            self._loop.start(self.process, self._connect(router))

    def kill(self) -> None:
        """Kills the Envoy: its requests are cut, and nobody will say what they used."""
        self.process.is_dead = True
        for _, work in self.folder.logs[self.start].buffered:
            if work is not None:
                work.is_lost = True
        for work in list(self._truth.running()):
            if work.envoy == self.start:
                work.is_lost = True
                self._engines.cut(work)
        self.folder.logs[self.start].buffered.clear()
        self._gateway.context.run(self._shipper.unfollow)

    def lose_disk(self) -> None:
        """A full disk: what is not yet on it never gets there."""
        log = self.folder.logs[self.start]
        for _, work in log.buffered:
            if work is not None:
                work.is_lost = True
        log.buffered.clear()

    def ask(self, request: Request) -> None:
        """A client's request arrives."""
        self._loop.start(self.process, self._carry(request))

    def _open_gateway(self, report_s: float) -> None:
        self._shipper = AccessLogShipper(
            self.folder,  # type: ignore[arg-type]
            Stub(self._network, self.name, CONTROL),  # type: ignore[arg-type]
            ShipperSettings(poll_s=min(_POLL_S, report_s), report_s=report_s, backoff_s_max=_BACKOFF_S_MAX),
            now=lambda: datetime.fromtimestamp(EPOCH_MS / 1000 + self._loop.now_s + self._skew_s, UTC),
            monotonic=lambda: self._loop.now_s,
        )
        self._loop.start(self._gateway, self._shipper.run())

    async def _connect(self, router: str) -> None:
        while True:
            with suppress(grpc.aio.AioRpcError):
                await self._network.call(self.name, router, "connected", self.start, _CHECK_TIMEOUT_S)
                return
            await asyncio.sleep(_CHECK_TIMEOUT_S)

    async def _carry(self, request: Request) -> None:
        started_s = self._loop.now_s
        ticket = await self._checked(request)
        if ticket is None:
            self._log(request, None, None, started_s, {})
            return
        work = Work(request, ticket, self.start, prices=self._engines.prices)
        self._truth.begins(work)
        address = ""
        for attempt in ticket.attempts:
            if self._engines.accepts(attempt, ticket):
                address = attempt.address
                await self._engines.run(work, attempt)
                break
        work.is_ended = True
        self._log(request, work, address, started_s, self._engines.story(work))

    async def _checked(self, request: Request) -> router_pb2.Ticket | None:
        order = self._rng.sample(self._routers, len(self._routers))
        for router in (order * 2)[:2]:
            check = f"{request.id}@{router}.{self._rng.getrandbits(32)}"
            try:
                ticket = await self._network.call(self.name, router, "check", (check, request), _CHECK_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._network.tell(self.name, router, "hung_up", check)
                continue
            except EnginehouseError:
                continue
            return ticket  # type: ignore[no-any-return]
        return None

    def _log(
        self, request: Request, work: Work | None, address: str | None, started_s: float, story: dict[str, Any]
    ) -> None:
        log, ticket = self.folder.logs[self.start], work.ticket if work else None
        fields = {
            "request_id": request.id,
            "router": ticket.router if ticket else "-",
            "ticket": ticket_text(ticket) if ticket else "-",
            "upstream_host": address or "-",
            "response_code": 200 if address else 503 if ticket else 402,
            "bytes_sent": 1,
            "start_time": _timestamp(started_s),
            "end_time": _timestamp(self._loop.now_s),
            **story,
        }
        line = json.dumps(fields)
        log.emitted += 1
        log.buffered.append((line, work))
        self._loop.call_later(_FLUSH_S, self._flush, log, context=self.process.context)
        if work is not None:
            assert ticket is not None
            record = read_line(line)
            work.is_entry_lost = True  # until its owner has it
            self._network.tell(self.name, ticket.router, "logged", record)
        if work is not None and work.replica and ticket is not None and ticket.lane == common_pb2.LANE_ADAPTER:
            self._engines.report(work)

    def _flush(self, log: Log) -> None:
        log.lines += [line for line, _ in log.buffered]
        log.buffered.clear()


def _timestamp(now_s: float) -> str:
    return datetime.fromtimestamp(EPOCH_MS / 1000 + now_s, UTC).isoformat()
