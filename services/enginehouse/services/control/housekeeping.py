"""What is forgotten, and when."""

from functools import partial

from sqlalchemy import delete, exists, or_, update

from enginehouse.services.control.access_logs import COMPLETE_MS
from enginehouse.services.control.allowances import Now
from enginehouse.services.control.database import UNLOADED, Transaction
from enginehouse.services.control.schema import (
    AccessLogRow,
    AccountRow,
    AcquisitionRow,
    ChargeRow,
    ReleaseRow,
    ShareRow,
)
from enginehouse.services.control.settings import ControlSettings


async def tidy(transaction: Transaction, settings: ControlSettings, now: Now) -> None:
    """Deletes what nobody can ask for any more.

    Answers to acquisitions and releases go with the shares they were about; charges only once their share has ended,
    because until then they are what keeps a request from being charged twice.
    """
    history_ms = now.wall_ms - round(settings.history_s * 1000)
    forget = partial(transaction.session.execute, execution_options=UNLOADED)
    answered_ms = now.steady_ms - settings.term_ms - settings.doubt_ms
    await forget(delete(AcquisitionRow).where(AcquisitionRow.answer_ms < answered_ms))
    await forget(delete(ReleaseRow).where(ReleaseRow.answer_ms < answered_ms))
    is_open = exists().where(ShareRow.id == ChargeRow.share_id, ~ShareRow.is_closed)
    await forget(delete(ChargeRow).where(ChargeRow.create_ms < history_ms, ~is_open))
    await forget(delete(ShareRow).where(ShareRow.is_closed, ShareRow.term_end_ms < history_ms))
    has_shares = exists().where(
        ShareRow.limit_id == AccountRow.limit_id, ShareRow.window_start_ms == AccountRow.window_start_ms
    )
    await forget(delete(AccountRow).where(AccountRow.window_end_ms < history_ms, ~has_shares))
    await _forget_silent(transaction, settings, now)


async def _forget_silent(transaction: Transaction, settings: ControlSettings, now: Now) -> None:
    # An Envoy nobody has heard of for so long is gone, and nobody knows how: that is a gap. A gap is remembered for as
    # long as there is a share that it may be about.
    silent = AccessLogRow.heard_ms < now.wall_ms - round(settings.envoy_silence_s * 1000)
    running = ~AccessLogRow.is_over & (AccessLogRow.complete_until_ms < COMPLETE_MS)
    execute = partial(transaction.session.execute, execution_options=UNLOADED)
    await execute(update(AccessLogRow).where(silent, running).values(is_over=True, gap_until_ms=now.wall_ms))
    drift_ms = round(settings.clock_drift_s * 1000)
    is_about_a_share = exists().where(~ShareRow.is_closed, ShareRow.create_ms <= AccessLogRow.gap_until_ms + drift_ms)
    await execute(delete(AccessLogRow).where(silent, or_(AccessLogRow.gap_until_ms.is_(None), ~is_about_a_share)))
