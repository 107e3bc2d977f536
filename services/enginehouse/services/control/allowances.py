"""What routers lease: fencing numbers, shares acquired all or nothing, and what is given back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select, tuple_

from enginehouse.contract import Reason, RequestError
from enginehouse.router.limits import Demand, Limit, Shortage, Window, grant, share_id, window_at
from enginehouse.services.control.accounts import AccountKey, LockedAccounts, limit_of, new_account_row
from enginehouse.services.control.database import Transaction
from enginehouse.services.control.durations import duration_of_ms, shorten, timestamp_of_ms
from enginehouse.services.control.names import checked_id
from enginehouse.services.control.rows import insert_missing, next_number
from enginehouse.services.control.schema import AccountRow, AcquisitionRow, LimitRow, RouterRow, ShareRow
from enginehouse.v1 import ledger_pb2

DEMANDS_MAX = 64
_ID_LENGTH_MAX = 200


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks, in milliseconds."""

    wall_ms: int
    steady_ms: int


class MissingAccountsError(Exception):
    """Accounts that are leased from for the first time. Make them with `open_accounts`, then acquire again."""

    def __init__(self, rows: Sequence[AccountRow]) -> None:
        super().__init__(f"{len(rows)} accounts to be opened")
        self.rows = rows


async def enroll(transaction: Transaction, router: str, now: Now) -> int:
    """Gives a router process its fencing number, larger than every earlier one of any router.

    Shares of an older process keep their terms: their requests may still run.
    """
    checked_id(router, "router")
    session = transaction.session
    fence = await next_number(session, "fence")
    row = await session.get(RouterRow, router, with_for_update=True)
    if row is None:
        session.add(RouterRow(id=router, fence=fence, enroll_ms=now.wall_ms))
    else:
        row.fence, row.enroll_ms = fence, now.wall_ms
    return fence


async def check_fence(transaction: Transaction, router: str, fence: int) -> None:
    """Holds the router's row as it is until the transaction ends.

    Raises:
        RequestError: `fence` is not the router's newest.
    """
    current = await transaction.session.scalar(
        select(RouterRow.fence).where(RouterRow.id == router).with_for_update(read=True)
    )
    if current is None:
        raise RequestError(f"router {router[:80]!r} has not enrolled: enroll first", Reason.STALE_FENCE)
    if current != fence:
        raise RequestError(
            f"router {router} has the fence {current}, not {fence}: a newer process enrolled; enroll again",
            Reason.STALE_FENCE,
        )


async def acquire(
    transaction: Transaction, request: ledger_pb2.AcquireAllowancesRequest, now: Now, term_ms: int
) -> ledger_pb2.AcquireAllowancesResponse:
    """Leases a share of each limit, or of none. An acquisition that was answered is answered the same again.

    Raises:
        MissingAccountsError: a window has just begun; see there.
        RequestError: the request is malformed, the fence is stale, or a limit does not exist.
    """
    demands = _demands(request)
    await check_fence(transaction, request.router, request.fence)
    given = await transaction.session.get(AcquisitionRow, request.acquisition_id)
    if given is not None:
        return _answer_again(given, request, now)
    limits = await _limits(transaction, [demand.limit for demand in demands])
    windows = {limit.id: window_at(limit, now.wall_ms) for limit in limits.values()}
    keys = {limit: AccountKey(limit, window.start_ms) for limit, window in windows.items()}
    accounts = await LockedAccounts.lock(transaction, keys.values())
    missing = [new_account_row(limits[key.limit], windows[key.limit]) for key in keys.values() if key not in accounts]
    if missing:
        raise MissingAccountsError(missing)
    amounts = grant({limit: accounts.account(key) for limit, key in keys.items()}, demands)
    if isinstance(amounts, list):
        answer = ledger_pb2.AcquireAllowancesResponse(
            shortages=[_shortage(short, limits[short.limit], windows[short.limit], now) for short in amounts]
        )
    else:
        shares = await _open_shares(transaction, accounts, request, keys, now)
        answer = ledger_pb2.AcquireAllowancesResponse()
        for limit, amount in amounts.items():
            window, share = windows[limit], shares[limit]
            accounts.lease(share.id, amount, _term_end_ms(window, now, term_ms))
            answer.allowances.append(_allowance(limits[limit], window, share, amount, now))
    accounts.store()
    # A second call with this id that came here at the same time fails on the key, runs again, and finds the answer.
    transaction.session.add(
        AcquisitionRow(
            id=request.acquisition_id,
            router=request.router,
            fence=request.fence,
            answer=answer.SerializeToString(),
            answer_ms=now.steady_ms,
        )
    )
    return answer


async def open_accounts(transaction: Transaction, rows: Iterable[AccountRow]) -> None:
    """Makes accounts, unless others just did.

    A transaction of its own: rows are locked in the order of their keys, and one that makes some of them after it has
    locked others would break that order.
    """
    for row in sorted(rows, key=lambda row: (row.limit_id, row.window_start_ms)):
        await insert_missing(transaction.session, row)


async def release(transaction: Transaction, request: ledger_pb2.ReleaseAllowancesRequest) -> None:
    """Gives back parts of shares. A share that has ended, or went with its limit, has nothing to give back.

    A return has no id, so it cannot be told from its repetition: the caller must not repeat one whose outcome it does
    not know.

    Raises:
        RequestError: the fence is stale, a share is another process's, or an amount is negative.
    """
    await check_fence(transaction, request.router, request.fence)
    for part in request.returns:
        if part.amount < 0:
            raise RequestError(f"allowance {part.allowance}: cannot return {part.amount}; amounts are not negative")
    share_ids = {part.allowance for part in request.returns}
    accounts = await LockedAccounts.lock(transaction, await keys_of(transaction, share_ids), share_ids)
    for part in request.returns:
        share = accounts.share(part.allowance)
        if share is None:
            continue
        if (share.router, share.fence) != (request.router, request.fence):
            raise RequestError(
                f"allowance {part.allowance} belongs to another router process", Reason.PERMISSION_DENIED
            )
        accounts.give_back(part.allowance, part.amount)
    accounts.store()


async def keys_of(transaction: Transaction, share_ids: Iterable[str]) -> set[AccountKey]:
    """The accounts of those of the shares that exist. A share never changes its account, so no lock is needed."""
    found = await transaction.session.execute(
        select(ShareRow.limit_id, ShareRow.window_start_ms).where(ShareRow.id.in_(share_ids)).distinct()
    )
    return {AccountKey(limit, start_ms) for limit, start_ms in found}


def _demands(request: ledger_pb2.AcquireAllowancesRequest) -> list[Demand]:
    if not 0 < len(request.acquisition_id) <= _ID_LENGTH_MAX:
        raise RequestError(f"acquisition_id must have 1 to {_ID_LENGTH_MAX} characters")
    if not 0 < len(request.demands) <= DEMANDS_MAX:
        raise RequestError(f"an acquisition has 1 to {DEMANDS_MAX} demands, not {len(request.demands)}")
    if len({demand.limit for demand in request.demands}) < len(request.demands):
        raise RequestError("an acquisition names every limit once")
    for demand in request.demands:
        if demand.amount_min < 0 or demand.amount_want < 0:
            raise RequestError(f"limit {demand.limit[:80]!r}: amounts must not be negative")
    return [Demand(demand.limit, demand.amount_min, demand.amount_want) for demand in request.demands]


def _answer_again(
    row: AcquisitionRow, request: ledger_pb2.AcquireAllowancesRequest, now: Now
) -> ledger_pb2.AcquireAllowancesResponse:
    if (row.router, row.fence) != (request.router, request.fence):
        raise RequestError(f"acquisition {request.acquisition_id} was made by another router process")
    answer = ledger_pb2.AcquireAllowancesResponse.FromString(row.answer)
    passed_ms = now.steady_ms - row.answer_ms
    for allowance in answer.allowances:
        shorten(allowance.term, passed_ms)
        if allowance.HasField("window_left"):
            shorten(allowance.window_left, passed_ms)
    for shortage in answer.shortages:
        if shortage.HasField("window_left"):
            shorten(shortage.window_left, passed_ms)
    return answer


async def _limits(transaction: Transaction, ids: Sequence[str]) -> dict[str, Limit]:
    rows = await transaction.session.scalars(
        select(LimitRow).where(LimitRow.id.in_(ids)).order_by(LimitRow.id).with_for_update(read=True)
    )
    limits = {row.id: limit_of(row) for row in rows}
    for limit in ids:
        if limit not in limits:
            raise RequestError(f"there is no limit {limit[:80]!r}", Reason.RESOURCE_NOT_FOUND)
    return limits


async def _open_shares(
    transaction: Transaction,
    accounts: LockedAccounts,
    request: ledger_pb2.AcquireAllowancesRequest,
    keys: Mapping[str, AccountKey],
    now: Now,
) -> dict[str, ShareRow]:
    pairs = [(key.limit, key.window_start_ms) for key in keys.values()]
    rows = await accounts.load_shares(
        ShareRow.fence == request.fence,
        ~ShareRow.is_closed,
        tuple_(ShareRow.limit_id, ShareRow.window_start_ms).in_(pairs),
    )
    shares = {row.limit_id: row for row in rows}
    for limit, key in keys.items():
        if limit not in shares:
            # Numbered, because an id must never come back: a process may still hold in what it knows of a share that
            # has ended, or that went with its limit.
            number = await next_number(transaction.session, "share")
            shares[limit] = ShareRow(
                id=f"{share_id(request.fence, limit, Window(key.window_start_ms, None))}.{number}",
                router=request.router,
                fence=request.fence,
                limit_id=limit,
                window_start_ms=key.window_start_ms,
                remaining=0,
                term_end_ms=0,
                create_ms=now.steady_ms,
            )
            accounts.add_share(shares[limit])
    return shares


def _term_end_ms(window: Window, now: Now, term_ms: int) -> int:
    left_ms = term_ms if window.end_ms is None else min(term_ms, window.end_ms - now.wall_ms)
    return now.steady_ms + left_ms


def _allowance(limit: Limit, window: Window, share: ShareRow, amount: int, now: Now) -> ledger_pb2.Allowance:
    allowance = ledger_pb2.Allowance(
        id=share.id,
        limit=limit.id,
        unit=limit.unit,
        amount=amount,
        term=duration_of_ms(share.term_end_ms - now.steady_ms),
        cap=limit.cap,
    )
    if window.end_ms is not None:
        allowance.window_start.CopyFrom(timestamp_of_ms(window.start_ms))
        allowance.window_end.CopyFrom(timestamp_of_ms(window.end_ms))
        allowance.window_left.CopyFrom(duration_of_ms(window.end_ms - now.wall_ms))
    return allowance


def _shortage(shortage: Shortage, limit: Limit, window: Window, now: Now) -> ledger_pb2.AllowanceShortage:
    answer = ledger_pb2.AllowanceShortage(
        limit=limit.id,
        amount_left=shortage.amount_left,
        amount_min=shortage.amount_min,
        cap=limit.cap,
        unit=limit.unit,
    )
    if window.end_ms is not None:
        answer.window_end.CopyFrom(timestamp_of_ms(window.end_ms))
        answer.window_left.CopyFrom(duration_of_ms(window.end_ms - now.wall_ms))
    return answer
