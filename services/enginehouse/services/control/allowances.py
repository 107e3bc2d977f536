"""What routers lease: fencing numbers, shares acquired all or nothing, and what is given back."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import select, tuple_

from enginehouse.contract import Reason, RequestError
from enginehouse.router.limits import (
    IN_FLIGHT,
    Demand,
    Limit,
    Shortage,
    Window,
    chunk_ahead,
    grant,
    share_id,
    window_at,
    windows_after,
)
from enginehouse.services.control.accounts import AccountKey, LockedAccounts, limit_of, new_account_row
from enginehouse.services.control.database import Transaction
from enginehouse.services.control.durations import duration_of_ms, shorten, timestamp_of_ms
from enginehouse.services.control.names import checked_id
from enginehouse.services.control.rows import insert_missing, next_number
from enginehouse.services.control.schema import AcquisitionRow, LimitRow, ReleaseRow, RouterRow, ShareRow
from enginehouse.v1 import ledger_pb2

DEMANDS_MAX = 64
AHEAD_WINDOWS_MAX = 60
_AFTER_WINDOW_MS = 60_000
"""A router stops holding some seconds before a term ends, and a request that is checked then is held for still."""

_ID_LENGTH_MAX = 200


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks, in milliseconds."""

    wall_ms: int
    steady_ms: int


class MissingAccountsError(Exception):
    """Accounts that are leased from for the first time. Make them with `open_accounts`, then acquire again."""

    def __init__(self, windows: Collection[tuple[str, Window]]) -> None:
        super().__init__(f"{len(windows)} accounts to be opened")
        self.windows = windows


class RecallableError(Exception):
    """What is missing may lie unused with other router processes: their fences, by account. Nothing was done."""

    def __init__(self, fences: Mapping[AccountKey, Collection[int]]) -> None:
        super().__init__(f"{len(fences)} accounts may have unused shares")
        self.fences = fences


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
    transaction: Transaction,
    request: ledger_pb2.AcquireAllowancesRequest,
    now: Now,
    term_ms: int,
    recallable: Collection[int] = (),
) -> ledger_pb2.AcquireAllowancesResponse:
    """Leases a share of each limit, or of none. An acquisition that was answered is answered the same again.

    Args:
        transaction: what it belongs to.
        request: what is asked.
        now: the moment.
        term_ms: how long an allowance lasts.
        recallable: fences of the processes whose unused shares can be asked for, before this is refused.

    Raises:
        MissingAccountsError: a window has just begun; see there.
        RecallableError: there is too little left, and some of those processes have a share.
        RequestError: the request is malformed, the fence is stale, or a limit does not exist.
    """
    demands = _demands(request)
    await check_fence(transaction, request.router, request.fence)
    given = await transaction.session.get(AcquisitionRow, request.acquisition_id)
    if given is not None:
        return _answer_again(given, request, now)
    limits = await _limits(transaction, [demand.limit for demand in demands])
    terms = _Terms(now, term_ms)
    windows = {limit.id: window_at(limit, now.wall_ms) for limit in limits.values()}
    ahead = {
        demand.limit: list(terms.windows_ahead(limits[demand.limit], windows[demand.limit]))
        for demand in demands
        if demand.amount_ahead
    }
    wanted = [*windows.items(), *((limit, window) for limit, later in ahead.items() for window in later)]
    accounts = await LockedAccounts.lock(transaction, [_key(limit, window) for limit, window in wanted])
    missing = [(limit, window) for limit, window in wanted if _key(limit, window) not in accounts]
    if missing:
        raise MissingAccountsError(missing)
    amounts = grant({limit: accounts.account(_key(limit, window)) for limit, window in windows.items()}, demands)
    if isinstance(amounts, list):
        await _check_recallable(transaction, {_key(short.limit, windows[short.limit]) for short in amounts}, recallable)
        answer = ledger_pb2.AcquireAllowancesResponse(
            shortages=[_shortage(short, limits[short.limit], windows[short.limit], now) for short in amounts]
        )
    else:
        leases = [_Lease(limits[limit], windows[limit], amount) for limit, amount in amounts.items()]
        leases += [
            _Lease(limits[demand.limit], window, amount)
            for demand in demands
            for window in ahead.get(demand.limit, ())
            if (amount := chunk_ahead(demand, accounts.account(_key(demand.limit, window)).left))
        ]
        answer = await _lease(transaction, accounts, request, leases, terms)
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


async def open_accounts(transaction: Transaction, windows: Collection[tuple[str, Window]]) -> None:
    """Makes accounts, unless others just did, or the limit is gone.

    A transaction of its own: rows are locked in the order of their keys, and one that makes some of them after it has
    locked others would break that order. The limits are read anew, because a cap may have changed in between, and no
    account of this window was there to be told.
    """
    rows = await transaction.session.scalars(
        select(LimitRow)
        .where(LimitRow.id.in_({limit for limit, _ in windows}))
        .order_by(LimitRow.id)
        .with_for_update(read=True)
    )
    limits = {row.id: limit_of(row) for row in rows}
    for limit, window in sorted(windows, key=lambda pair: (pair[0], pair[1].start_ms)):
        if limit in limits:
            await insert_missing(transaction.session, new_account_row(limits[limit], window))


async def release(transaction: Transaction, request: ledger_pb2.ReleaseAllowancesRequest, now: Now) -> None:
    """Gives back parts of shares, once. A share that has ended, or went with its limit, has nothing to give back.

    Raises:
        RequestError: the fence is stale, a share is another process's, an amount is negative, or there is no id.
    """
    if not 0 < len(request.release_id) <= _ID_LENGTH_MAX:
        raise RequestError(f"release_id must have 1 to {_ID_LENGTH_MAX} characters")
    for part in request.returns:
        if part.amount < 0:
            raise RequestError(f"allowance {part.allowance}: cannot return {part.amount}; amounts are not negative")
    await check_fence(transaction, request.router, request.fence)
    done = ReleaseRow(id=request.release_id, router=request.router, fence=request.fence, answer_ms=now.steady_ms)
    if not await insert_missing(transaction.session, done):
        return
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
        if min(demand.amount_min, demand.amount_want, demand.amount_ahead) < 0:
            raise RequestError(f"limit {demand.limit[:80]!r}: amounts must not be negative")
    return [
        Demand(demand.limit, demand.amount_min, demand.amount_want, demand.amount_ahead) for demand in request.demands
    ]


def _answer_again(
    row: AcquisitionRow, request: ledger_pb2.AcquireAllowancesRequest, now: Now
) -> ledger_pb2.AcquireAllowancesResponse:
    if (row.router, row.fence) != (request.router, request.fence):
        raise RequestError(f"acquisition {request.acquisition_id} was made by another router process")
    answer = ledger_pb2.AcquireAllowancesResponse.FromString(row.answer)
    passed_ms = now.steady_ms - row.answer_ms
    for allowance in answer.allowances:
        shorten(allowance.term, passed_ms)
        if allowance.HasField("window_starts_in"):
            shorten(allowance.window_starts_in, passed_ms)
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


@dataclass(frozen=True, slots=True)
class _Terms:
    """When what is leased now ends, and which windows begin before that."""

    now: Now
    term_ms: int

    def end_ms(self, window: Window) -> int:
        """On the steady clock: soon after the window's end, so that the share can be held in until then."""
        if window.end_ms is None:
            return self.now.steady_ms + self.term_ms
        return self.now.steady_ms + min(self.term_ms, window.end_ms - self.now.wall_ms + _AFTER_WINDOW_MS)

    def windows_ahead(self, limit: Limit, window: Window) -> Iterable[Window]:
        """Those that begin within the term. Requests in flight have none: a slot is given back, whenever that is."""
        if limit.unit == IN_FLIGHT:
            return ()
        return islice(windows_after(limit, window, self.now.wall_ms + self.term_ms), AHEAD_WINDOWS_MAX)


@dataclass(frozen=True, slots=True)
class _Lease:
    limit: Limit
    window: Window
    amount: int

    @property
    def key(self) -> AccountKey:
        return _key(self.limit.id, self.window)


async def _lease(
    transaction: Transaction,
    accounts: LockedAccounts,
    request: ledger_pb2.AcquireAllowancesRequest,
    leases: Sequence[_Lease],
    terms: _Terms,
) -> ledger_pb2.AcquireAllowancesResponse:
    shares = await _open_shares(transaction, accounts, request, [one.key for one in leases], terms.now)
    answer = ledger_pb2.AcquireAllowancesResponse()
    for one in leases:
        share = shares[one.key]
        accounts.lease(share.id, one.amount, terms.end_ms(one.window))
        answer.allowances.append(_allowance(one.limit, one.window, share, one.amount, terms.now))
    return answer


async def _check_recallable(
    transaction: Transaction, keys: Collection[AccountKey], recallable: Collection[int]
) -> None:
    if not recallable:
        return
    rows = await transaction.session.execute(
        select(ShareRow.limit_id, ShareRow.window_start_ms, ShareRow.fence).where(
            tuple_(ShareRow.limit_id, ShareRow.window_start_ms).in_([(key.limit, key.window_start_ms) for key in keys]),
            ShareRow.fence.in_(recallable),
            ShareRow.remaining > 0,
        )
    )
    fences: dict[AccountKey, set[int]] = {}
    for limit, start_ms, fence in rows:
        fences.setdefault(AccountKey(limit, start_ms), set()).add(fence)
    if fences:
        raise RecallableError(fences)


async def _open_shares(
    transaction: Transaction,
    accounts: LockedAccounts,
    request: ledger_pb2.AcquireAllowancesRequest,
    keys: Sequence[AccountKey],
    now: Now,
) -> dict[AccountKey, ShareRow]:
    rows = await accounts.load_shares(
        ShareRow.fence == request.fence,
        ~ShareRow.is_closed,
        tuple_(ShareRow.limit_id, ShareRow.window_start_ms).in_([(key.limit, key.window_start_ms) for key in keys]),
    )
    shares = {AccountKey(row.limit_id, row.window_start_ms): row for row in rows}
    for key in keys:
        if key not in shares:
            # Numbered, because an id must never come back: a process may still hold in what it knows of a share that
            # has ended, or that went with its limit.
            number = await next_number(transaction.session, "share")
            shares[key] = ShareRow(
                id=f"{share_id(request.fence, key.limit, Window(key.window_start_ms, None))}.{number}",
                router=request.router,
                fence=request.fence,
                limit_id=key.limit,
                window_start_ms=key.window_start_ms,
                remaining=0,
                term_end_ms=0,
                create_ms=now.steady_ms,
            )
            accounts.add_share(shares[key])
    return shares


def _key(limit: str, window: Window) -> AccountKey:
    return AccountKey(limit, window.start_ms)


def _allowance(limit: Limit, window: Window, share: ShareRow, amount: int, now: Now) -> ledger_pb2.Allowance:
    allowance = ledger_pb2.Allowance(
        id=share.id,
        limit=limit.id,
        limit_uid=limit.uid,
        unit=limit.unit,
        amount=amount,
        term=duration_of_ms(share.term_end_ms - now.steady_ms),
        cap=limit.cap,
    )
    if window.start_ms:
        allowance.window_start.CopyFrom(timestamp_of_ms(window.start_ms))
    if window.start_ms > now.wall_ms:
        allowance.window_starts_in.CopyFrom(duration_of_ms(window.start_ms - now.wall_ms))
    if window.end_ms is not None:
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
