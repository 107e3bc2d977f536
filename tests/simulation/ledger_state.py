"""The ledger's rows, read past all product code."""

import sqlite3
from dataclasses import dataclass

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class AccountState:
    """A row of `accounts`."""

    limit: str
    window_start_ms: int
    window_end_ms: int | None
    spent: int
    allotted: int
    cap_target: int
    cap_effective: int
    written_off: int

    @property
    def key(self) -> Key:
        """Limit and window."""
        return self.limit, self.window_start_ms


@dataclass(frozen=True, slots=True)
class ShareState:
    """A row of `shares`."""

    id: str
    limit: str
    window_start_ms: int
    remaining: int
    term_end_ms: int
    is_closed: bool
    written_off: int

    @property
    def key(self) -> Key:
        """Limit and window."""
        return self.limit, self.window_start_ms


@dataclass(frozen=True, slots=True)
class ChargeState:
    """A row of `charges`."""

    request_id: str
    limit: str
    share: str
    amount: int
    overrun: int
    late: int


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Everything that is counted."""

    accounts: dict[Key, AccountState]
    shares: dict[str, ShareState]
    charges: dict[tuple[str, str], ChargeState]


def read_state(connection: sqlite3.Connection) -> LedgerState:
    """Reads all rows."""
    accounts = [
        AccountState(*row)
        for row in connection.execute(
            "SELECT limit_id, window_start_ms, window_end_ms, spent, allotted, cap_target, cap_effective, written_off"
            " FROM accounts"
        )
    ]
    shares = [
        ShareState(row[0], row[1], row[2], row[3], row[4], is_closed=bool(row[5]), written_off=row[6])
        for row in connection.execute(
            "SELECT id, limit_id, window_start_ms, remaining, term_end_ms, is_closed, written_off FROM shares"
        )
    ]
    charges = [
        ChargeState(*row)
        for row in connection.execute("SELECT request_id, limit_id, share_id, amount, overrun, late FROM charges")
    ]
    return LedgerState(
        {account.key: account for account in accounts},
        {share.id: share for share in shares},
        {(charge.request_id, charge.limit): charge for charge in charges},
    )


def newest_fence(connection: sqlite3.Connection, router: str) -> int | None:
    """The fence of the newest process of a router."""
    row = connection.execute("SELECT fence FROM routers WHERE id = ?", (router,)).fetchone()
    return None if row is None else int(row[0])
