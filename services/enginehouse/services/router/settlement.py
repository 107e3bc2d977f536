"""Ends what was admitted: charges what the access log or a node's report says was used, exactly once."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from enginehouse.router import Ending, Settlement, settle
from enginehouse.router.limits import USD
from enginehouse.services.access_log import AccessRecord
from enginehouse.services.router.allowances import Allowances
from enginehouse.v1 import common_pb2, events_pb2, router_pb2

_log = structlog.get_logger(__name__)
REPORT_GRACE_MS = 15_000
"""How long a node may take to report a stream that ended without trailers; after it, its bound is charged."""
LOG_GRACE_MS = 5_000
"""How long Envoy's log may take after such a report."""
OVER_MAX = 10_000


@dataclass(slots=True)
class Admitted:
    """A request on its way. Times are on the router's boot-time clock."""

    ticket: router_pb2.Ticket
    admitted_ms: int
    ended_ms: int | None = None
    record: AccessRecord | None = None


@dataclass(frozen=True, slots=True)
class Untold:
    """A request that a node's report has settled, before Envoy's log told how it ended for the client."""

    ticket: router_pb2.Ticket
    settlement: Settlement
    settled_ms: int
    engine_failed: bool


class Settler:
    """The requests that this router admitted and that have not ended.

    Args:
        allowances: where they hold.
        publish: takes each settlement as an event.
        boot_ms: the router's boot-time clock.
        longest_ms: how long a request may take, check included; an older one without an end is charged in full.
        foreign: takes how a request ended that another router process admitted; see `Handover`. It must not block.
    """

    def __init__(
        self,
        allowances: Allowances,
        *,
        publish: Callable[[str, str, str, events_pb2.RequestSettled], None],
        boot_ms: Callable[[], int],
        longest_ms: int,
        foreign: Callable[[router_pb2.Ticket, Ending], None] | None = None,
    ) -> None:
        self.in_flight: dict[str, int] = {}
        self._allowances = allowances
        self._publish = publish
        self._boot_ms = boot_ms
        self._longest_ms = longest_ms
        self._foreign = foreign
        self._admitted: dict[str, Admitted] = {}
        self._untold: dict[str, Untold] = {}
        self._over: dict[str, None] = {}

    def admit(self, ticket: router_pb2.Ticket) -> None:
        """Remembers a request that holds now."""
        self._admitted[ticket.request_id] = Admitted(ticket, self._boot_ms())
        replica = ticket.attempts[0].replica
        self.in_flight[replica] = self.in_flight.get(replica, 0) + 1
        if ticket.request_id in self._over:
            self.release(ticket.request_id)

    def is_admitted(self, request_id: str) -> bool:
        """Whether the request is on its way."""
        return request_id in self._admitted

    def release(self, request_id: str) -> None:
        """Ends a request that never left: nothing is charged."""
        admitted = self._admitted.get(request_id)
        if admitted is not None:
            self._end(admitted, Ending(), "released")

    def logged(self, record: AccessRecord) -> None:
        """Envoy says that a request ended."""
        untold = self._untold.pop(record.request_id, None)
        if untold is not None:
            outcome = _outcome(record, engine_failed=untold.engine_failed)
            self._tell(untold.ticket, untold.settlement, record.http_status, outcome)
        admitted = self._admitted.get(record.request_id)
        ending = Ending(record.replica, record.address, record.http_status, record.usage)
        if admitted is None:
            if record.ticket is not None:
                if not _awaits_report(record.ticket, ending):
                    self._hand_over(record.ticket, ending)
            else:
                self._note_over(record.request_id)
            return
        if _awaits_report(admitted.ticket, ending):
            admitted.ended_ms, admitted.record = self._boot_ms(), record
            return
        self._end(admitted, ending, _outcome(record))

    def reported(self, report: router_pb2.SettleRequest) -> Settlement | None:
        """A node says what a request used. None when it has been settled before."""
        ticket, replica, usage = report.ticket, report.replica, report.usage
        admitted = self._admitted.get(ticket.request_id)
        if admitted is None:
            self._hand_over(ticket, Ending(replica=replica, usage=usage))
            return None
        if admitted.record is not None:
            ending = Ending(replica=replica, http_status=admitted.record.http_status, usage=usage)
            return self._end(admitted, ending, _outcome(admitted.record, engine_failed=report.engine_failed))
        settlement = self._settle(admitted, Ending(replica=replica, usage=usage))
        # The charge does not wait for the log; the event does, because only the log knows what the client saw.
        self._untold[ticket.request_id] = Untold(admitted.ticket, settlement, self._boot_ms(), report.engine_failed)
        return settlement

    async def until_charged(self) -> None:
        """Returns once the ledger knows everything that was settled until now."""
        await self._allowances.until_settled()

    def sweep(self) -> None:
        """Ends what nobody reported in time, by its upper bound, and tells what no log told in time."""
        now_ms = self._boot_ms()
        self._tell_overdue(now_ms - LOG_GRACE_MS)
        for admitted in list(self._admitted.values()):
            if admitted.ended_ms is not None and now_ms - admitted.ended_ms >= REPORT_GRACE_MS:
                record = admitted.record
                address = record.address if record else ""
                self._end(admitted, Ending(address=address), _outcome(record) if record else "unreported")
            elif now_ms - admitted.admitted_ms >= self._longest_ms:
                _log.warning("request without an end is charged in full", request_id=admitted.ticket.request_id)
                self._end(admitted, Ending(replica=admitted.ticket.attempts[0].replica), "lost")

    @property
    def count(self) -> int:
        """How many requests are on their way."""
        return len(self._admitted)

    def stop(self) -> None:
        """Tells what waits for a log that will find nobody here."""
        self._tell_overdue(self._boot_ms())

    def _note_over(self, request_id: str) -> None:
        """Envoy gave up before it had an answer. Its question may still wait here, and must hold nothing then."""
        self._over[request_id] = None
        if len(self._over) > OVER_MAX:
            del self._over[next(iter(self._over))]

    def _tell_overdue(self, settled_until_ms: int) -> None:
        for request_id, untold in list(self._untold.items()):
            if untold.settled_ms <= settled_until_ms:
                del self._untold[request_id]
                self._tell(untold.ticket, untold.settlement, 0, "reported")

    def _end(self, admitted: Admitted, ending: Ending, outcome: str) -> Settlement:
        settlement = self._settle(admitted, ending)
        self._tell(admitted.ticket, settlement, ending.http_status, outcome)
        return settlement

    def _settle(self, admitted: Admitted, ending: Ending) -> Settlement:
        ticket = admitted.ticket
        del self._admitted[ticket.request_id]
        replica = ticket.attempts[0].replica
        self.in_flight[replica] -= 1
        settlement = settle(ticket, ending)
        self._allowances.settle(ticket.request_id, settlement.used, settlement.deployment)
        return settlement

    def _hand_over(self, ticket: router_pb2.Ticket, ending: Ending) -> None:
        # One of this process that is not on its way any more has been settled.
        is_foreign = (ticket.router, ticket.fence) != self._allowances.identity
        if is_foreign and self._foreign is not None:
            self._foreign(ticket, ending)

    def _tell(self, ticket: router_pb2.Ticket, settlement: Settlement, http_status: int, outcome: str) -> None:
        held_nanousd = max((hold.amount for hold in ticket.holds if hold.unit == USD), default=settlement.cost_nanousd)
        event = events_pb2.RequestSettled(
            request_id=ticket.request_id,
            decision_id=ticket.decision_id,
            router=ticket.router,
            principal=ticket.principal,
            replica=settlement.replica,
            usage=settlement.usage,
            charged_nanousd=min(settlement.cost_nanousd, held_nanousd),
            overrun_nanousd=max(0, settlement.cost_nanousd - held_nanousd),
            http_status=http_status,
            outcome=outcome,
        )
        self._publish("request", ticket.request_id, "settled", event)


def _awaits_report(ticket: router_pb2.Ticket, ending: Ending) -> bool:
    """Whether the log does not say what was used, and the node's report, which does, is on its way."""
    return ticket.lane == common_pb2.LANE_ADAPTER and not settle(ticket, ending).is_certain


def _outcome(record: AccessRecord, *, engine_failed: bool = False) -> str:
    if engine_failed:
        return "engine_failed"
    if record.client_left:
        return "client_left"
    if record.upstream_broke or not record.address or record.grpc_status:
        return "engine_failed"
    return "complete" if 200 <= record.http_status < 400 and not _is_refused_call(record) else "refused_by_engine"


def _is_refused_call(record: AccessRecord) -> bool:
    """Whether it is a gRPC call that ended without trailers: an error alone, which HTTP answers with status 200."""
    is_grpc = record.ticket is not None and record.ticket.dialect == common_pb2.DIALECT_GRPC
    return is_grpc and record.grpc_status is None
