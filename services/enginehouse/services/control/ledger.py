"""LedgerService: routers' and shippers' calls, each in one transaction."""

from functools import partial
from typing import Any

import grpc.aio
from typing_extensions import override

from enginehouse.services.control import access_logs, allowances, charges
from enginehouse.services.control.access_logs import LineReader
from enginehouse.services.control.allowances import MissingAccountsError, Now
from enginehouse.services.control.clock import Clock
from enginehouse.services.control.database import Database, Transaction
from enginehouse.services.control.doubt import DoubtResolver, Resolved
from enginehouse.services.control.durations import duration_of_ms
from enginehouse.services.control.housekeeping import tidy
from enginehouse.services.control.settings import ControlSettings
from enginehouse.v1 import ledger_pb2, ledger_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]


class LedgerService(ledger_pb2_grpc.LedgerServiceServicer):
    """The ledger.

    Args:
        database: where its rows are.
        settings: terms.
        clock: windows by its wall time, terms by its steady time.
        read_line: reads a line of an Envoy's access log.
    """

    def __init__(self, database: Database, settings: ControlSettings, clock: Clock, read_line: LineReader) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._read_line = read_line
        self._resolver = DoubtResolver(database, settings, clock.steady_ms())

    @override
    async def Enroll(self, request: ledger_pb2.EnrollRequest, context: _Context) -> ledger_pb2.EnrollResponse:
        """Gives a router process its fencing number."""
        work = partial(allowances.enroll, router=request.router, now=self._now())
        fence = await self._database.write(work)
        return ledger_pb2.EnrollResponse(fence=fence, term=duration_of_ms(self._settings.term_ms))

    @override
    async def AcquireAllowances(
        self, request: ledger_pb2.AcquireAllowancesRequest, context: _Context
    ) -> ledger_pb2.AcquireAllowancesResponse:
        """Leases shares, all or nothing."""

        async def work(transaction: Transaction) -> ledger_pb2.AcquireAllowancesResponse:
            # The time is read under the database's turn: a call may have waited for it past the end of a window.
            return await allowances.acquire(transaction, request, self._now(), self._settings.term_ms)

        while True:
            try:
                return await self._database.write(work)
            except MissingAccountsError as missing:  # a window has begun; the next may before the second try
                await self._database.write(partial(allowances.open_accounts, rows=missing.rows))

    @override
    async def SettleCharges(
        self, request: ledger_pb2.SettleChargesRequest, context: _Context
    ) -> ledger_pb2.SettleChargesResponse:
        """Charges finished requests, each once."""
        charged = await self._database.write(partial(charges.settle, request=request, now=self._now()))
        return ledger_pb2.SettleChargesResponse(charged=charged)

    @override
    async def ReleaseAllowances(
        self, request: ledger_pb2.ReleaseAllowancesRequest, context: _Context
    ) -> ledger_pb2.ReleaseAllowancesResponse:
        """Takes back what a router does not need."""
        await self._database.write(partial(allowances.release, request=request))
        return ledger_pb2.ReleaseAllowancesResponse()

    @override
    async def ShipAccessLog(
        self, request: ledger_pb2.ShipAccessLogRequest, context: _Context
    ) -> ledger_pb2.ShipAccessLogResponse:
        """Takes in a stretch of an Envoy's access log."""
        stretch = await access_logs.read_stretch(request, self._read_line)
        work = partial(access_logs.take_in, request=request, stretch=stretch, now=self._now())
        return ledger_pb2.ShipAccessLogResponse(next_line=await self._database.write(work))

    async def resolve_doubt(self, now: Now | None = None) -> Resolved:
        """Ends what doubt can be ended, and forgets what is long over.

        Args:
            now: the moment; None for this one.
        """
        moment = now or self._now()
        resolved = await self._resolver.resolve_doubt(moment)
        if self._resolver.is_caught_up(moment):
            await self._database.write(partial(tidy, settings=self._settings, now=moment))
        return resolved

    def _now(self) -> Now:
        return Now(self._clock.wall_ms(), self._clock.steady_ms())
