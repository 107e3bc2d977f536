"""Envoys' access logs: the second source of what was used, for when the router that decided is gone."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import ColumnElement, and_, delete, select, tuple_

from enginehouse.contract import Reason, RequestError
from enginehouse.router.settlement import Ending, settle
from enginehouse.services.access_log import AccessRecord
from enginehouse.services.control.allowances import Now
from enginehouse.services.control.charges import CHARGES_MAX, Charge, charge_from_message, charge_logged
from enginehouse.services.control.database import Transaction
from enginehouse.services.control.durations import ms_of_timestamp
from enginehouse.services.control.rows import insert_missing
from enginehouse.services.control.schema import AccessLogRow, ChargeRow, LoggedChargeRow, RouterRow, ShareRow
from enginehouse.v1 import common_pb2, ledger_pb2, router_pb2

_log = structlog.get_logger(__name__)

LINES_MAX = 2000
COMPLETE_MS = 253_402_214_400_000
"""9999-12-31: what the log of an Envoy that has ended in order is complete until."""

REPORT_MS = 45_000
"""How long a node's report is waited for: nodes try for 30 s, and it may pass a router that has just started."""

_ID_LENGTH_MAX = 200
_LINES_AT_ONCE = 50

LineReader = Callable[[str], AccessRecord | None]
"""Reads one line of an access log. None: it is not about a request that a router decided. Whatever it raises: the line
cannot be read, and the log has a gap there."""


@dataclass(frozen=True, slots=True)
class LoggedCharge:
    """What a line says that a request owes, and the router process that would say so itself.

    `is_certain` is False for the bound of a call in the adapter lane that nobody counted: its node's report is better,
    and is on its way.
    """

    charge: Charge
    fence: int
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive lines of one Envoy's log, read: a tuple of charges for each line, None where it was unreadable."""

    first_line: int
    lines: tuple[tuple[LoggedCharge, ...] | None, ...]

    def after(self, next_line: int) -> tuple[tuple[LoggedCharge, ...] | None, ...]:
        """The lines from number `next_line` on."""
        return self.lines[max(0, next_line - self.first_line) :]


async def read_stretch(request: ledger_pb2.ShipAccessLogRequest, read_line: LineReader) -> Stretch:
    """Reads the lines of a request, letting others run in between.

    Raises:
        RequestError: the request is malformed.
    """
    if not 0 < len(request.envoy) <= _ID_LENGTH_MAX:
        raise RequestError(f"envoy must have 1 to {_ID_LENGTH_MAX} characters")
    if request.first_line < 0:
        raise RequestError(f"first_line must not be negative, not {request.first_line}")
    if len(request.lines) > LINES_MAX:
        raise RequestError(
            f"{len(request.lines)} lines in one call; send at most {LINES_MAX}", Reason.REQUEST_TOO_LARGE
        )
    lines: list[tuple[LoggedCharge, ...] | None] = []
    for number, line in enumerate(request.lines):
        if number % _LINES_AT_ONCE == 0:
            await asyncio.sleep(0)
        lines.append(_read(line, read_line, request.envoy, request.first_line + number))
    return Stretch(request.first_line, tuple(lines))


async def take_in(
    transaction: Transaction, request: ledger_pb2.ShipAccessLogRequest, stretch: Stretch, now: Now
) -> int:
    """Takes in the lines that are new and returns the number of the first that is still wanted.

    A request whose router process lives and may still settle is only noted; the others are charged.
    """
    session = transaction.session
    fresh_row = AccessLogRow(
        envoy=request.envoy, next_line=0, complete_until_ms=0, gap_until_ms=None, is_over=False, heard_ms=now.wall_ms
    )
    await insert_missing(session, fresh_row)
    row = await session.get_one(AccessLogRow, request.envoy, with_for_update=True)
    row.heard_ms = now.wall_ms
    if stretch.first_line > row.next_line:
        return row.next_line
    fresh = stretch.after(row.next_line)
    _advance(row, request, fresh, now)
    await charge_or_note(transaction, [logged for line in fresh for logged in line or ()], now)
    return row.next_line


def _advance(
    row: AccessLogRow,
    request: ledger_pb2.ShipAccessLogRequest,
    fresh: Sequence[tuple[LoggedCharge, ...] | None],
    now: Now,
) -> None:
    row.next_line += len(fresh)
    if None in fresh:
        row.gap_until_ms = max(row.gap_until_ms or 0, now.wall_ms)
    if request.HasField("complete_until"):
        row.complete_until_ms = max(row.complete_until_ms, ms_of_timestamp(request.complete_until))
        row.is_over = request.gap
    if request.gap:
        # the last moment at which the process may have lived; whoever cannot say it says it now
        until_ms = ms_of_timestamp(request.complete_until) if request.HasField("complete_until") else now.wall_ms
        row.gap_until_ms = max(row.gap_until_ms or 0, until_ms)


def read_reported(request: ledger_pb2.ReportChargesRequest) -> list[LoggedCharge]:
    """Reads what a router reports of requests that another process admitted.

    Raises:
        RequestError: a charge is malformed.
    """
    if len(request.charges) > CHARGES_MAX:
        raise RequestError(
            f"{len(request.charges)} charges in one call; send at most {CHARGES_MAX}", Reason.REQUEST_TOO_LARGE
        )
    return [LoggedCharge(charge_from_message(report.charge, report.router), report.fence) for report in request.charges]


async def charge_or_note(transaction: Transaction, logged: Sequence[LoggedCharge], now: Now) -> None:
    """Charges what dead processes' requests used, and only notes those of living ones, who may still settle."""
    if not logged:
        return
    session = transaction.session
    routers = {item.charge.router for item in logged}
    fences = dict((await session.execute(select(RouterRow.id, RouterRow.fence).where(RouterRow.id.in_(routers)))).all())
    shares = {item.charge.share for item in logged}
    usable = select(ShareRow.id).where(
        ShareRow.id.in_(shares), ~ShareRow.is_closed, ShareRow.term_end_ms > now.steady_ms
    )
    in_term = set(await session.scalars(usable))
    orphans: list[LoggedCharge] = []
    living: list[LoggedCharge] = []
    for item in logged:
        settles_itself = fences.get(item.charge.router) == item.fence and item.charge.share in in_term
        (living if settles_itself or not item.is_certain else orphans).append(item)
    if orphans:
        await charge_logged(transaction, [item.charge for item in orphans], now)
    await _note(transaction, living, now)


async def _note(transaction: Transaction, logged: Iterable[LoggedCharge], now: Now) -> None:
    by_key = {item.charge.key: item for item in logged}
    if not by_key:
        return
    key = tuple_(ChargeRow.request_id, ChargeRow.limit_id)
    found = await transaction.session.execute(
        select(ChargeRow.request_id, ChargeRow.limit_id).where(key.in_(list(by_key)))
    )
    known = {(request_id, limit) for request_id, limit in found}
    for item_key, item in sorted(by_key.items(), key=lambda pair: pair[0]):
        if item_key in known:
            continue
        if item.is_certain:
            await transaction.session.execute(delete(LoggedChargeRow).where(_is_noted_bound(item.charge)))
        await insert_missing(transaction.session, _row(item, now))


def _is_noted_bound(charge: Charge) -> ColumnElement[bool]:
    row = LoggedChargeRow
    return and_(row.request_id == charge.request_id, row.limit_id == charge.limit, row.due_ms > 0)


def _read(line: str, read_line: LineReader, envoy: str, number: int) -> tuple[LoggedCharge, ...] | None:
    try:
        record = read_line(line)
        return () if record is None or record.ticket is None else tuple(_charges(record, record.ticket))
    except Exception as error:  # noqa: BLE001 (a line that is never taken in would hold up all that follow)
        _log.warning("access log line unreadable", envoy=envoy, line=number, error=type(error).__qualname__)
        return None


def _charges(record: AccessRecord, ticket: router_pb2.Ticket) -> Iterable[LoggedCharge]:
    settlement = settle(ticket, Ending(record.replica, record.address, record.http_status, record.usage))
    is_certain = settlement.is_certain or ticket.lane != common_pb2.LANE_ADAPTER
    for hold in ticket.holds:
        used = settlement.used.get(hold.limit, 0)
        amount = min(used, hold.amount)
        if used > 0:
            charge = Charge(
                record.request_id,
                hold.limit,
                hold.allowance,
                ticket.router,
                amount,
                used - amount,
                settlement.deployment,
            )
            yield LoggedCharge(charge, ticket.fence, is_certain)


def _row(item: LoggedCharge, now: Now) -> LoggedChargeRow:
    charge = item.charge
    return LoggedChargeRow(
        request_id=charge.request_id,
        limit_id=charge.limit,
        share_id=charge.share,
        router=charge.router,
        fence=item.fence,
        amount=charge.amount,
        overrun=charge.overrun,
        due_ms=0 if item.is_certain else now.steady_ms + REPORT_MS,
    )
