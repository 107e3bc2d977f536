"""Rows of the ledger, locked in a fixed order, changed by the pure rules, written back with their events."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from sqlalchemy import ColumnElement, select, tuple_

from enginehouse.contract import InternalError
from enginehouse.router import limits
from enginehouse.router.limits import Account, Limit, Share, Window
from enginehouse.services.control.database import Transaction
from enginehouse.services.control.schema import AccountRow, LimitRow, ShareRow
from enginehouse.v1 import events_pb2
from enginehouse.v1.ledger_pb2 import LimitUnit, LimitWindow


@dataclass(frozen=True, slots=True, order=True)
class AccountKey:
    """Which account: a limit in one window."""

    limit: str
    window_start_ms: int


@dataclass(frozen=True, slots=True)
class Charged:
    """What a report of use led to: charged for good, counted as overrun, or too late for either."""

    amount: int
    overrun: int
    late: int


class LockedAccounts:
    """Accounts, and some of their shares, that no other transaction changes until this one ends.

    Accounts are locked in the order of their keys, and before anything else is written, so two transactions never wait
    for each other. A share is only ever changed under its account's lock.
    """

    def __init__(self, transaction: Transaction, rows: Mapping[AccountRow, LimitUnit.ValueType]) -> None:
        self._transaction = transaction
        self._units = {row.limit_id: unit for row, unit in rows.items()}
        self._rows = {AccountKey(row.limit_id, row.window_start_ms): row for row in rows}
        self._before = {key: _account(row) for key, row in self._rows.items()}
        self._accounts = dict(self._before)
        self._share_rows: dict[str, ShareRow] = {}
        self._overran: dict[str, str] = {}

    @classmethod
    async def lock(
        cls, transaction: Transaction, keys: Collection[AccountKey], share_ids: Collection[str] = ()
    ) -> Self:
        """Locks those of the accounts that exist, and loads those of the shares that do."""
        if not keys:
            return cls(transaction, {})
        wanted = [(key.limit, key.window_start_ms) for key in keys]
        found = await transaction.session.execute(
            select(AccountRow, LimitRow.unit)
            .join(LimitRow, LimitRow.id == AccountRow.limit_id)
            .where(tuple_(AccountRow.limit_id, AccountRow.window_start_ms).in_(wanted))
            .order_by(AccountRow.limit_id, AccountRow.window_start_ms)
            .with_for_update(of=AccountRow)
        )
        locked = cls(transaction, {row: LimitUnit.ValueType(unit) for row, unit in found})
        if share_ids:
            await locked.load_shares(ShareRow.id.in_(share_ids))
        return locked

    async def load_shares(self, *conditions: ColumnElement[bool]) -> list[ShareRow]:
        """Loads the shares that meet all of `conditions` and belong to an account here."""
        rows = await self._transaction.session.scalars(select(ShareRow).where(*conditions).order_by(ShareRow.id))
        found = [row for row in rows if AccountKey(row.limit_id, row.window_start_ms) in self._rows]
        self._share_rows.update({row.id: row for row in found})
        return found

    def __iter__(self) -> Iterator[AccountKey]:
        """The keys of the accounts that exist."""
        return iter(self._accounts)

    def __contains__(self, key: object) -> bool:
        """Whether there is such an account."""
        return key in self._accounts

    def account(self, key: AccountKey) -> Account:
        """The account as it is now, in this transaction."""
        return self._accounts[key]

    def unit(self, limit: str) -> LimitUnit.ValueType:
        """The unit of a limit that has an account here."""
        return self._units[limit]

    def share(self, share_id: str) -> ShareRow | None:
        """The row of a share. None: it was deleted with its limit, or never existed. Read only."""
        return self._share_rows.get(share_id)

    def add_share(self, row: ShareRow) -> None:
        """Takes in a share that was made under these locks."""
        self._transaction.session.add(row)
        self._share_rows[row.id] = row

    def set_cap(self, key: AccountKey, cap: int) -> None:
        """Raises or lowers the cap of one account."""
        self._accounts[key] = limits.set_cap(self._accounts[key], cap)

    def lease(self, share_id: str, amount: int, term_end_ms: int) -> None:
        """Moves `amount` into the share and prolongs it."""
        key, share = self._share(share_id)
        if share.is_closed:
            raise InternalError(f"share {share_id} has ended: nothing can be leased into it")
        self._set(key, share_id, *limits.lease(self._accounts[key], share, amount, term_end_ms))

    def charge(self, share_id: str, amount: int, overrun: int, deployment: str = "") -> Charged:
        """Charges a request's use, by `deployment` if that is known.

        What comes after the end of a share was charged already if the share was written off. If it was given back,
        because the logs were complete and did not name it, it can only be reported.
        """
        key, share = self._share(share_id)
        before = self._accounts[key]
        is_given_back = share.is_closed and self._share_rows[share_id].written_off == 0
        if overrun:
            self._overran[key.limit] = deployment
        part = (0, overrun + amount) if is_given_back else (amount, overrun)
        self._set(key, share_id, *limits.charge(before, share, *part))
        after = self._accounts[key]
        spent, over = after.spent - before.spent, after.overrun - before.overrun
        return Charged(spent, over, amount + overrun - spent - over)

    def give_back(self, share_id: str, amount: int) -> None:
        """Returns `amount` of the share, or what it still has if that is less."""
        key, share = self._share(share_id)
        self._set(key, share_id, *limits.give_back(self._accounts[key], share, amount))

    def close(self, share_id: str) -> None:
        """Ends the share; what nobody charged was not used."""
        key, share = self._share(share_id)
        self._set(key, share_id, *limits.close(self._accounts[key], share))

    def write_off(self, share_id: str) -> None:
        """Ends the share; what is left of it is charged."""
        key, share = self._share(share_id)
        self._share_rows[share_id].written_off += share.remaining
        self._set(key, share_id, *limits.write_off(self._accounts[key], share))

    def store(self) -> None:
        """Writes the accounts back, and has their events sent after the commit."""
        for key, row in self._rows.items():
            before, after = self._before[key], self._accounts[key]
            if before == after:
                continue
            row.spent, row.allotted = after.spent, after.allotted
            row.cap_target, row.cap_effective = after.cap_target, after.cap_effective
            row.overrun, row.written_off = after.overrun, after.written_off
            self._announce(before, after)
            self._before[key] = after

    def _share(self, share_id: str) -> tuple[AccountKey, Share]:
        row = self._share_rows[share_id]
        key = AccountKey(row.limit_id, row.window_start_ms)
        return key, _share(row, self._accounts[key].window)

    def _set(self, key: AccountKey, share_id: str, account: Account, share: Share) -> None:
        self._accounts[key] = account
        row = self._share_rows[share_id]
        row.remaining, row.term_end_ms, row.is_closed = share.remaining, share.term_end_ms, share.is_closed

    def _announce(self, before: Account, after: Account) -> None:
        payload = events_pb2.LimitChanged(
            limit=after.limit,
            unit=self._units[after.limit],
            cap=after.cap_target,
            spent=after.spent,
            allotted=after.allotted,
        )
        if after.window.start_ms:
            payload.window_start.FromMilliseconds(after.window.start_ms)
        for percent in limits.thresholds_passed(before, after):
            passed = events_pb2.LimitChanged()
            passed.CopyFrom(payload)
            passed.threshold_percent = percent
            self._transaction.announce("limit", after.limit, "threshold", passed)
        for what, amount in (
            ("overrun", after.overrun - before.overrun),
            ("written_off", after.written_off - before.written_off),
        ):
            if amount > 0:
                told = events_pb2.LimitChanged()
                told.CopyFrom(payload)
                told.amount = amount
                told.deployment = self._overran.get(after.limit, "") if what == "overrun" else ""
                self._transaction.announce("limit", after.limit, what, told)


def limit_of(row: LimitRow) -> Limit:
    """The limit of a row."""
    return Limit(
        row.id,
        row.scope,
        LimitUnit.ValueType(row.unit),
        LimitWindow.ValueType(row.window_kind),
        row.cap,
        row.time_zone,
        row.start_ms,
        row.end_ms,
        row.uid,
    )


def new_account_row(limit: Limit, window: Window) -> AccountRow:
    """The row of an account with nothing spent."""
    account = limits.open_account(limit, window)
    return AccountRow(
        limit_id=limit.id,
        window_start_ms=window.start_ms,
        window_end_ms=window.end_ms,
        spent=account.spent,
        allotted=account.allotted,
        cap_target=account.cap_target,
        cap_effective=account.cap_effective,
        overrun=account.overrun,
        written_off=account.written_off,
    )


def _account(row: AccountRow) -> Account:
    return Account(
        row.limit_id,
        Window(row.window_start_ms, row.window_end_ms),
        row.spent,
        row.allotted,
        row.cap_target,
        row.cap_effective,
        row.overrun,
        row.written_off,
    )


def _share(row: ShareRow, window: Window) -> Share:
    return Share(row.id, row.router, row.fence, row.limit_id, window, row.remaining, row.term_end_ms, row.is_closed)
