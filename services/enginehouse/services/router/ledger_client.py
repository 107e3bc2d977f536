"""The router's side of LedgerService: its calls, repeated safely, and their errors as ours."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TypeVar

import grpc
import structlog

from enginehouse.contract import DependencyError, EnginehouseError, Reason
from enginehouse.services.server import error_from_rpc
from enginehouse.v1 import ledger_pb2, ledger_pb2_grpc

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_ACQUIRE_TIMEOUT_S = 0.9
"""Twice this fits into the time that Envoy gives a check."""

_ACQUIRE_ATTEMPTS = 2
_CALL_TIMEOUT_S = 5.0


class LedgerClient:
    """One router process's calls. Each raises EnginehouseError: DependencyError when its outcome is unknown.

    Args:
        ledger: control's LedgerService.
        router: this router's id.
    """

    def __init__(self, ledger: "ledger_pb2_grpc.LedgerServiceAsyncStub", router: str) -> None:
        self.fence = 0
        self.term_ms = 0
        self._ledger = ledger
        self._router = router
        self._enrolling = asyncio.Lock()

    async def enroll(self) -> None:
        """Gets this process its fencing number, once: a second number would make the first stale."""
        async with self._enrolling:
            if self.fence:
                return
            request = ledger_pb2.EnrollRequest(router=self._router)
            answer = await _mapped(self._ledger.Enroll(request, timeout=_CALL_TIMEOUT_S))
            self.fence, self.term_ms = answer.fence, answer.term.ToMilliseconds()
            _log.info("enrolled with the ledger", router=self._router, fence=self.fence)

    def acquisition(
        self, acquisition_id: str, demands: Sequence[ledger_pb2.AllowanceDemand]
    ) -> ledger_pb2.AcquireAllowancesRequest:
        """What `acquire` asks, and asks again until it is answered."""
        return ledger_pb2.AcquireAllowancesRequest(
            router=self._router, fence=self.fence, acquisition_id=acquisition_id, demands=demands
        )

    async def acquire(self, request: ledger_pb2.AcquireAllowancesRequest) -> ledger_pb2.AcquireAllowancesResponse:
        """Asks, and once more when there is no answer: the same id takes nothing twice."""
        for attempt in range(1, _ACQUIRE_ATTEMPTS + 1):
            try:
                return await _mapped(self._ledger.AcquireAllowances(request, timeout=_ACQUIRE_TIMEOUT_S))
            except DependencyError:
                if attempt == _ACQUIRE_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    async def settle(self, charges: Sequence[ledger_pb2.Charge]) -> None:
        """Charges; what was charged before is not charged again."""
        request = ledger_pb2.SettleChargesRequest(router=self._router, fence=self.fence, charges=charges)
        await _mapped(self._ledger.SettleCharges(request, timeout=_CALL_TIMEOUT_S))

    async def report(self, charges: Sequence[ledger_pb2.ReportedCharge]) -> None:
        """Reports what other processes' requests used."""
        request = ledger_pb2.ReportChargesRequest(reporter=self._router, charges=charges)
        await _mapped(self._ledger.ReportCharges(request, timeout=_CALL_TIMEOUT_S))

    async def know_envoy(self, envoy: str) -> None:
        """Says that an Envoy is there: its access log is waited for before any doubt of its time ends."""
        await _mapped(self._ledger.ShipAccessLog(ledger_pb2.ShipAccessLogRequest(envoy=envoy), timeout=_CALL_TIMEOUT_S))

    def release(
        self, release_id: str, returns: Sequence[ledger_pb2.AllowanceReturn], recalls: Sequence[str] = ()
    ) -> ledger_pb2.ReleaseAllowancesRequest:
        """What `send_release` sends, and sends again until it is answered."""
        return ledger_pb2.ReleaseAllowancesRequest(
            router=self._router, fence=self.fence, release_id=release_id, returns=returns, recalls=recalls
        )

    async def send_release(self, request: ledger_pb2.ReleaseAllowancesRequest) -> None:
        """Gives back; the same id gives nothing back twice."""
        await _mapped(self._ledger.ReleaseAllowances(request, timeout=_CALL_TIMEOUT_S))

    async def recalls(self) -> AsyncIterator[ledger_pb2.WatchRecallsResponse]:
        """What others need, until control ends the stream or cannot be reached."""
        request = ledger_pb2.WatchRecallsRequest(router=self._router, fence=self.fence)
        try:
            async for message in self._ledger.WatchRecalls(request):
                yield message
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error


def is_stale(error: EnginehouseError) -> bool:
    """Whether the ledger knows a newer process of this router, and this one must end."""
    return error.reason is Reason.STALE_FENCE


async def _mapped(call: Awaitable[_T]) -> _T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error
