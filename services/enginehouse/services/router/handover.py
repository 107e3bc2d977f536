"""Ends of requests that another router process admitted: handed to that process, or to control when it is gone.

Envoy logs to the router that decided. When that one was started anew, or another took over its address, its entries
come to somebody who holds nothing for them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import structlog

from enginehouse.contract import DependencyError, EnginehouseError
from enginehouse.router import Ending, settle
from enginehouse.services.router.ledger_client import LedgerClient
from enginehouse.services.server import channel
from enginehouse.v1 import ledger_pb2, router_pb2, router_pb2_grpc

_log = structlog.get_logger(__name__)

WAITING_MAX = 10_000
"""More is dropped, oldest first: control reads the same entries in the shipped access log."""

_BATCH = 200
_SETTLE_TIMEOUT_S = 1.0
_RETRY_S = 0.5
_OWNERS_MAX = 32


@dataclass(frozen=True, slots=True)
class _Ended:
    ticket: router_pb2.Ticket
    ending: Ending


class Handover:
    """Takes such ends in and passes them on, in the background.

    Args:
        client: this router's calls to the ledger.
        router: this router's id.
        open_channel: opens the way to another router.
    """

    def __init__(
        self,
        client: LedgerClient,
        *,
        router: str,
        open_channel: Callable[[str], grpc.aio.Channel] = channel,
    ) -> None:
        self._client = client
        self._router = router
        self._open_channel = open_channel
        self._waiting: deque[_Ended] = deque(maxlen=WAITING_MAX)
        self._arrived = asyncio.Event()
        self._owners: dict[str, grpc.aio.Channel] = {}

    def take(self, ticket: router_pb2.Ticket, ending: Ending) -> None:
        """Takes in how a request ended that somebody else admitted."""
        self._waiting.append(_Ended(ticket, ending))
        self._arrived.set()

    async def run(self) -> None:
        """Passes on for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                await self._pass_on(batch)

    async def stop(self) -> None:
        """Closes the ways to other routers."""
        for owner in self._owners.values():
            await owner.close()
        self._owners.clear()

    async def _pass_on(self, batch: Sequence[_Ended]) -> None:
        taken = await asyncio.gather(*(self._tell_owner(ended) for ended in batch))
        charges = [
            charge
            for ended, is_taken in zip(batch, taken, strict=True)
            if not is_taken
            for charge in reported_charges(ended.ticket, ended.ending)
        ]
        while charges:
            try:
                await self._client.report(charges)
            except DependencyError as error:
                _log.warning("foreign ends wait for control", waiting=len(charges), error=error.message)
                await asyncio.sleep(_RETRY_S)
                continue
            except EnginehouseError as error:
                _log.error("foreign ends refused; the shipped access log has them", error=error.message)
            charges = []

    async def _tell_owner(self, ended: _Ended) -> bool:
        ticket = ended.ticket
        if ticket.router == self._router or not ticket.router_address:
            return False  # an earlier process of this router: there is nobody to tell
        settlement = settle(ticket, ended.ending)
        request = router_pb2.SettleRequest(ticket=ticket, replica=settlement.replica, usage=settlement.usage)
        stub = router_pb2_grpc.RouterServiceStub(self._owner(ticket.router_address))
        try:
            answer = await stub.Settle(request, timeout=_SETTLE_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        # Not the first: it was settled before, or another process of that router is there by now, which cannot know.
        return answer.first

    def _owner(self, address: str) -> grpc.aio.Channel:
        known = self._owners.get(address)
        if known is None:
            if len(self._owners) >= _OWNERS_MAX:
                self._owners.pop(next(iter(self._owners)))
            known = self._owners[address] = self._open_channel(address)
        return known


def reported_charges(ticket: router_pb2.Ticket, ending: Ending) -> list[ledger_pb2.ReportedCharge]:
    """What a request owes by its ticket: the same that its own router would charge."""
    settlement = settle(ticket, ending)
    charges = []
    for hold in ticket.holds:
        used = settlement.used.get(hold.limit, 0)
        if used > 0:
            charge = ledger_pb2.Charge(
                request_id=ticket.request_id,
                limit=hold.limit,
                allowance=hold.allowance,
                amount=min(used, hold.amount),
                overrun=max(0, used - hold.amount),
                deployment=settlement.deployment,
            )
            charges.append(ledger_pb2.ReportedCharge(router=ticket.router, fence=ticket.fence, charge=charge))
    return charges
