"""Charges: each made once, whoever reports it first."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum

from sqlalchemy import select, tuple_

from enginehouse.contract import Reason, RequestError
from enginehouse.router.limits import IN_FLIGHT
from enginehouse.services.control.accounts import Charged, LockedAccounts
from enginehouse.services.control.allowances import Now, keys_of
from enginehouse.services.control.database import Transaction
from enginehouse.services.control.quarantine import quarantine
from enginehouse.services.control.schema import ChargeRow
from enginehouse.v1 import ledger_pb2

CHARGES_MAX = 5000
_ID_LENGTH_MAX = 200


class ChargeSource(IntEnum):
    """Who reported a charge."""

    ROUTER = 1
    ACCESS_LOG = 2


@dataclass(frozen=True, slots=True, order=True)
class Charge:
    """What one request used of one limit: inside its hold, and beyond. `deployment` did the work; empty: unknown."""

    request_id: str
    limit: str
    share: str
    router: str
    amount: int
    overrun: int
    deployment: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What is charged once."""
        return self.request_id, self.limit


async def settle(transaction: Transaction, request: ledger_pb2.SettleChargesRequest, now: Now) -> int:
    """Charges what a router reports and returns how many charges were new. An older process may still settle.

    Raises:
        RequestError: a charge is malformed, or names a share of another router or of another limit.
    """
    if len(request.charges) > CHARGES_MAX:
        raise RequestError(
            f"{len(request.charges)} charges in one call; send at most {CHARGES_MAX}", Reason.REQUEST_TOO_LARGE
        )
    charges = [charge_from_message(charge, request.router) for charge in request.charges]
    accounts = await _locked(transaction, charges)
    for charge in charges:
        complaint = _misfit(charge, accounts)
        if complaint is not None:
            raise RequestError(f"request {charge.request_id}: {complaint}")
    count = await charge_locked(transaction, accounts, charges, ChargeSource.ROUTER, now)
    accounts.store()
    return count


def charge_from_message(message: ledger_pb2.Charge, router: str) -> Charge:
    """Reads a charge of a request that `router` admitted.

    Raises:
        RequestError: it has no request id, or a negative amount.
    """
    if not 0 < len(message.request_id) <= _ID_LENGTH_MAX:
        raise RequestError(f"a charge's request_id must have 1 to {_ID_LENGTH_MAX} characters")
    if message.amount < 0 or message.overrun < 0:
        raise RequestError(f"request {message.request_id}: amounts must not be negative")
    return Charge(
        message.request_id,
        message.limit,
        message.allowance,
        router,
        message.amount,
        message.overrun,
        message.deployment,
    )


async def charge_logged(transaction: Transaction, charges: Collection[Charge], now: Now) -> int:
    """Charges what access logs say, as far as it was not charged before, and returns how many were new."""
    accounts = await _locked(transaction, charges)
    count = await charge_locked(transaction, accounts, charges, ChargeSource.ACCESS_LOG, now)
    accounts.store()
    return count


async def charge_locked(
    transaction: Transaction,
    accounts: LockedAccounts,
    charges: Collection[Charge],
    source: ChargeSource,
    now: Now,
) -> int:
    """The same under locks that the caller took and stores.

    What names no share, because it went with its limit, or one of another limit, cannot be charged; the report is kept
    all the same.
    """
    first: dict[tuple[str, str], Charge] = {}
    for charge in charges:
        first.setdefault(charge.key, charge)
    if not first:
        return 0
    known = await _known(transaction, first)
    # Sorted, so that two transactions that insert the same keys meet at the first of them and not crosswise.
    new = [charge for key, charge in sorted(first.items()) if key not in known]
    for charge in new:
        if accounts.share(charge.share) is None or _misfit(charge, accounts) is not None:
            charged = Charged(0, 0, charge.amount + charge.overrun)
        else:
            charged = accounts.charge(charge.share, charge.amount, charge.overrun, charge.deployment)
        transaction.session.add(_row(charge, charged, source, now))
    await quarantine(transaction, {charge.deployment for charge in new if charge.overrun and charge.deployment})
    return len(new)


async def _locked(transaction: Transaction, charges: Collection[Charge]) -> LockedAccounts:
    share_ids = {charge.share for charge in charges}
    return await LockedAccounts.lock(transaction, await keys_of(transaction, share_ids), share_ids)


def _misfit(charge: Charge, accounts: LockedAccounts) -> str | None:
    share = accounts.share(charge.share)
    if share is None:
        return None
    if share.limit_id != charge.limit:
        return f"allowance {share.id} is not one of limit {charge.limit[:80]!r}"
    if share.router != charge.router:
        return f"allowance {share.id} belongs to router {share.router}"
    if accounts.unit(share.limit_id) == IN_FLIGHT:
        return f"limit {charge.limit} counts requests in flight, which are given back and never charged"
    return None


async def _known(transaction: Transaction, keys: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    key = tuple_(ChargeRow.request_id, ChargeRow.limit_id)
    found = await transaction.session.execute(
        select(ChargeRow.request_id, ChargeRow.limit_id).where(key.in_(list(keys)))
    )
    return {(request_id, limit) for request_id, limit in found}


def _row(charge: Charge, charged: Charged, source: ChargeSource, now: Now) -> ChargeRow:
    return ChargeRow(
        request_id=charge.request_id,
        limit_id=charge.limit,
        share_id=charge.share,
        router=charge.router,
        amount=charged.amount,
        overrun=charged.overrun,
        late=charged.late,
        source=source,
        create_ms=now.wall_ms,
    )
