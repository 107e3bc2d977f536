"""The end of doubt: what becomes of shares whose router process is gone, or said nothing for too long."""

from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import delete, exists, or_, select

from enginehouse.contract import DependencyError
from enginehouse.router.limits import IN_FLIGHT
from enginehouse.services.control.accounts import AccountKey, LockedAccounts
from enginehouse.services.control.allowances import Now
from enginehouse.services.control.charges import Charge, ChargeSource, charge_locked, charge_logged
from enginehouse.services.control.database import UNLOADED, Database, Transaction
from enginehouse.services.control.schema import AccessLogRow, ChargeRow, LoggedChargeRow, RouterRow, ShareRow
from enginehouse.services.control.settings import ControlSettings

_log = structlog.get_logger(__name__)

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Resolved:
    """How many shares ended, and how."""

    closed: int = 0
    written_off: int = 0

    def __add__(self, other: "Resolved") -> "Resolved":
        return Resolved(self.closed + other.closed, self.written_off + other.written_off)


class DoubtResolver:
    """Charges what only logs know, and ends shares once their last request must be over.

    A share is in doubt from the end of its term, and its last request must be over the longest request later: at T.
    From then on, when every Envoy's log is complete up to T, what was logged is charged and the rest was not used.
    When a log has a gap, or does not come in time, or no Envoy ever shipped one, the whole rest is charged as
    `written_off`. Slots in flight are freed at T: they are no use that could be owed. Of a call that Envoy could not
    count the log has but a bound; it is charged only when the node's report, which is exact, has had its time.

    Time in which control or its database was down is nobody's fault: logs and routers get the same grace after it.

    Args:
        database: where the rows are.
        settings: terms and graces.
        up_since_ms: since when control answers, on the steady clock.
    """

    def __init__(self, database: Database, settings: ControlSettings, up_since_ms: int) -> None:
        self._database = database
        self._settings = settings
        self._up_since_ms: int | None = up_since_ms

    async def resolve_doubt(self, now: Now) -> Resolved:
        """One pass over everything.

        Raises:
            DependencyError: the database is away.
        """
        if self._up_since_ms is None:
            self._up_since_ms = now.steady_ms
        try:
            return await self._resolve(now)
        except DependencyError:
            self._up_since_ms = None
            raise

    def is_caught_up(self, now: Now) -> bool:
        """Whether everybody has had the time to report what happened while control was down."""
        return self._up_since_ms is not None and self._up_since_ms + self._grace_ms <= now.steady_ms

    async def _resolve(self, now: Now) -> Resolved:
        await self._database.write(_forget_settled)
        while await self._database.write(partial(_charge_orphans, now=now)) == _BATCH:
            pass
        due_ms = now.steady_ms - self._settings.doubt_ms
        async with self._database.read() as session:
            found = await session.execute(
                select(ShareRow.limit_id, ShareRow.window_start_ms)
                .where(~ShareRow.is_closed, ShareRow.term_end_ms <= due_ms)
                .distinct()
                .order_by(ShareRow.limit_id, ShareRow.window_start_ms)
            )
            keys = [AccountKey(limit, start_ms) for limit, start_ms in found]
        resolved = Resolved()
        for key in keys:
            resolved += await self._database.write(partial(self._resolve_account, key=key, now=now))
        return resolved

    async def _resolve_account(self, transaction: Transaction, key: AccountKey, now: Now) -> Resolved:
        accounts = await LockedAccounts.lock(transaction, [key])
        due_ms = now.steady_ms - self._settings.doubt_ms
        shares = await accounts.load_shares(
            ShareRow.limit_id == key.limit,
            ShareRow.window_start_ms == key.window_start_ms,
            ~ShareRow.is_closed,
            ShareRow.term_end_ms <= due_ms,
        )
        # Before the noted charges: a log that is complete has been noted in the same transaction or an earlier one.
        logs = list(await transaction.session.scalars(select(AccessLogRow)))
        awaited = await self._charge_noted(transaction, accounts, shares, now)
        resolved = Resolved()
        for share in shares:
            if share.id in awaited:
                continue
            if accounts.unit(key.limit) == IN_FLIGHT or share.remaining == 0 or self._is_complete(logs, share):
                accounts.close(share.id)
                resolved += Resolved(closed=1)
            elif self.is_caught_up(now) and share.term_end_ms + self._grace_ms <= due_ms:
                _log.warning("doubt charged", share=share.id, router=share.router, amount=share.remaining)
                accounts.write_off(share.id)
                resolved += Resolved(written_off=1)
        accounts.store()
        return resolved

    @property
    def _grace_ms(self) -> int:
        return round(self._settings.log_grace_s * 1000)

    def _is_complete(self, logs: list[AccessLogRow], share: ShareRow) -> bool:
        return bool(logs) and all(self._covers(log, share) for log in logs)

    def _covers(self, log: AccessLogRow, share: ShareRow) -> bool:
        drift_ms = round(self._settings.clock_drift_s * 1000)
        if log.gap_until_ms is not None and log.gap_until_ms + drift_ms >= share.create_ms:
            return False
        # one that ended before the share existed has nothing to say about it
        return log.is_over or log.complete_until_ms >= share.term_end_ms + self._settings.doubt_ms + drift_ms

    async def _charge_noted(
        self, transaction: Transaction, accounts: LockedAccounts, shares: list[ShareRow], now: Now
    ) -> set[str]:
        """Charges what was noted, and returns the shares of which a node may still report better than a bound."""
        ids = [share.id for share in shares]
        noted = list(
            await transaction.session.scalars(select(LoggedChargeRow).where(LoggedChargeRow.share_id.in_(ids)))
        )
        due = [_charge(row) for row in noted if row.due_ms <= now.steady_ms]
        await charge_locked(transaction, accounts, due, ChargeSource.ACCESS_LOG, now)
        return {row.share_id for row in noted if row.due_ms > now.steady_ms}


async def _forget_settled(transaction: Transaction) -> None:
    """Drops notes about requests that were charged, by whomever."""
    is_charged = exists().where(
        ChargeRow.request_id == LoggedChargeRow.request_id, ChargeRow.limit_id == LoggedChargeRow.limit_id
    )
    await transaction.session.execute(delete(LoggedChargeRow).where(is_charged), execution_options=UNLOADED)


async def _charge_orphans(transaction: Transaction, now: Now) -> int:
    """Charges noted requests whose router process has a successor, or whose share is past its term."""
    rows = await transaction.session.scalars(
        select(LoggedChargeRow)
        .outerjoin(RouterRow, RouterRow.id == LoggedChargeRow.router)
        .outerjoin(ShareRow, ShareRow.id == LoggedChargeRow.share_id)
        .where(
            LoggedChargeRow.due_ms <= now.steady_ms,
            or_(
                RouterRow.id.is_(None),
                RouterRow.fence != LoggedChargeRow.fence,
                ShareRow.id.is_(None),
                ShareRow.is_closed,
                ShareRow.term_end_ms <= now.steady_ms,
            ),
        )
        .order_by(LoggedChargeRow.request_id, LoggedChargeRow.limit_id)
        .limit(_BATCH)
    )
    charges = [_charge(row) for row in rows]
    if charges:
        await charge_logged(transaction, charges, now)
        await _forget_settled(transaction)
    return len(charges)


def _charge(row: LoggedChargeRow) -> Charge:
    return Charge(row.request_id, row.limit_id, row.share_id, row.router, row.amount, row.overrun)
