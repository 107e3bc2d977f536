"""LedgerService: routers' and shippers' calls, each in one transaction."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc.aio
from typing_extensions import override

from enginehouse.services.control import access_logs, allowances, charges
from enginehouse.services.control.access_logs import LineReader
from enginehouse.services.control.allowances import MissingAccountsError, Now, RecallableError
from enginehouse.services.control.clock import Clock
from enginehouse.services.control.database import Database, Transaction
from enginehouse.services.control.doubt import DoubtResolver, Resolved
from enginehouse.services.control.durations import duration_of_ms
from enginehouse.services.control.housekeeping import tidy
from enginehouse.services.control.recalls import RECALL_S, Recall, Recalls
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
        self._recalls = Recalls()
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

        recall: Recall | None = None
        late_s = asyncio.get_running_loop().time() + RECALL_S
        recallable: Collection[int] = self._recalls.who_answers(request.fence)
        try:
            while True:
                try:
                    return await self._acquire(request, recallable)
                except RecallableError as found:
                    recall = recall or self._recalls.ask(found.fences)
                if not await _is_answered(recall, late_s):
                    return await self._acquire(request, ())
                recallable = recall.unanswered
        finally:
            if recall is not None:
                self._recalls.over(recall)

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
        if request.returns or not request.recalls:
            await self._database.write(partial(allowances.release, request=request, now=self._now()))
        else:
            await self._check_fence(request.router, request.fence)
        self._recalls.answered(request.fence, request.recalls)
        return ledger_pb2.ReleaseAllowancesResponse()

    @override
    async def ReportCharges(
        self, request: ledger_pb2.ReportChargesRequest, context: _Context
    ) -> ledger_pb2.ReportChargesResponse:
        """Takes what a router learned of another process's requests."""
        reported = access_logs.read_reported(request)
        await self._database.write(partial(access_logs.charge_or_note, logged=reported, now=self._now()))
        return ledger_pb2.ReportChargesResponse()

    @override
    async def WatchRecalls(
        self, request: ledger_pb2.WatchRecallsRequest, context: _Context
    ) -> AsyncIterator[ledger_pb2.WatchRecallsResponse]:
        """Tells a router process what others need, until it leaves."""
        await self._check_fence(request.router, request.fence)
        # An answer without a message, so that the router knows that it is listened to.
        await context.send_initial_metadata(())
        async with aclosing(self._recalls.listen(request.fence)) as recalls:
            async for message in recalls:
                yield message

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

    def stop(self) -> None:
        """Ends the streams, which have no end of their own."""
        self._recalls.stop()

    async def _check_fence(self, router: str, fence: int) -> None:
        async with self._database.read() as session:  # beside any writer: an answer to a recall is waited for
            await allowances.check_fence(Transaction(session), router, fence)

    async def _acquire(
        self, request: ledger_pb2.AcquireAllowancesRequest, recallable: Collection[int]
    ) -> ledger_pb2.AcquireAllowancesResponse:
        async def work(transaction: Transaction) -> ledger_pb2.AcquireAllowancesResponse:
            # The time is read under the database's turn: a call may have waited for it past the end of a window.
            return await allowances.acquire(transaction, request, self._now(), self._settings.term_ms, recallable)

        while True:
            try:
                return await self._database.write(work)
            except MissingAccountsError as missing:  # a window has begun; the next may before the second try
                await self._database.write(partial(allowances.open_accounts, windows=missing.windows))

    def _now(self) -> Now:
        return Now(self._clock.wall_ms(), self._clock.steady_ms())


async def _is_answered(recall: Recall, late_s: float) -> bool:
    """Waits for one answer. False: all have been counted, or it is too late for more."""
    if not recall.unanswered:
        return False
    try:
        async with asyncio.timeout_at(late_s):
            await recall.next_answer()
    except TimeoutError:
        return False
    return True
