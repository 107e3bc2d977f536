"""Limits, and the scopes they are about."""

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from enginehouse.contract import Reason, RequestError
from enginehouse.router.limits import Window, cap_in, counts_in, window_at
from enginehouse.services.control.accounts import AccountKey, LockedAccounts, limit_of
from enginehouse.services.control.durations import ms_of_timestamp, timestamp_of_ms
from enginehouse.services.control.edit import Edit, about, check_etag, etag_of, exists, not_found
from enginehouse.services.control.names import (
    DeploymentName,
    KeyName,
    LimitName,
    OrganizationName,
    ProjectName,
    TenantName,
)
from enginehouse.services.control.rows import next_number
from enginehouse.services.control.schema import (
    AccountRow,
    DeploymentRow,
    KeyRow,
    LimitRow,
    OrganizationRow,
    ProjectRow,
    TenantRow,
)
from enginehouse.services.control.validation import check_cap, check_limit
from enginehouse.v1 import admin_pb2
from enginehouse.v1.ledger_pb2 import LimitUnit, LimitWindow

_MODELS = "models/"


async def create_limit(edit: Edit, name: LimitName, limit: admin_pb2.Limit) -> admin_pb2.Limit:
    """Creates a limit on a scope that exists.

    Raises:
        RequestError: the limit is not valid, its period is over, or another of this scope, unit and window counts at
            the same time: of two the larger cap would mean nothing.
    """
    check_limit(limit)
    start_ms, end_ms = _period_of(limit)
    if end_ms is not None and end_ms <= edit.wall_ms:
        raise RequestError(
            f"limit.end_time is {limit.end_time.ToJsonString()}, which has passed: the limit would never count"
        )
    await _check_scope(edit.session, limit.scope)
    if await edit.session.get(LimitRow, name.limit) is not None:
        raise exists(name)
    await _check_alone(edit.session, limit, start_ms, end_ms)
    row = LimitRow(
        id=name.limit,
        scope=limit.scope,
        unit=limit.unit,
        window_kind=limit.window,
        cap=limit.cap,
        time_zone=limit.time_zone or "UTC",
        declared=False,
        start_ms=start_ms,
        end_ms=end_ms,
        uid=await next_number(edit.session, "limit"),
    )
    edit.session.add(row)
    return _noted(edit, row, "created")


async def get_limit(session: AsyncSession, name: LimitName, now_ms: int) -> admin_pb2.Limit:
    """The limit, with the state of the window that is open now."""
    row = await session.get(LimitRow, name.limit)
    if row is None:
        raise not_found(name)
    return (await _with_status(session, [row], now_ms))[0]


async def list_limits(session: AsyncSession, now_ms: int) -> list[admin_pb2.Limit]:
    """All limits by name, each with the state of the window that is open now."""
    rows = list(await session.scalars(select(LimitRow).order_by(LimitRow.id)))
    return await _with_status(session, rows, now_ms)


async def update_limit(edit: Edit, limit: admin_pb2.Limit) -> admin_pb2.Limit:
    """Changes the cap, at once and also in the windows that are open. Fields that are not set stay as they are.

    Raises:
        RequestError: scope, unit, window, time zone or period would change; what was counted so far would lose its
            meaning.
    """
    name = LimitName.parse(limit.name)
    row = await _locked(edit.session, name)
    check_etag(limit.name, limit.etag, limit_message(row).etag)
    if not _is_same_kind(row, limit):
        raise RequestError(
            f"{name}: scope, unit, window, time zone and period of a limit cannot change; delete it and create another"
        )
    await _set_cap(edit, row, limit.cap)
    return (await _with_status(edit.session, [row], edit.wall_ms))[0]


async def delete_limit(edit: Edit, name: LimitName) -> None:
    """Deletes a limit with its accounts and shares. Charges that come later are kept and count nowhere."""
    row = await _locked(edit.session, name)
    # in the order in which everybody locks them, before the database does in its own
    await _lock_accounts(edit, row)
    await edit.session.delete(row)
    await edit.session.flush()
    edit.changed(str(name), "deleted")


async def declare_limits(edit: Edit, limits: Sequence[admin_pb2.Limit]) -> None:
    """Makes the declared limits what the configuration says. One of another kind replaces its namesake."""
    for limit in limits:
        with about(limit.name):
            await _declare(edit, LimitName.parse(limit.name), limit)


async def _declare(edit: Edit, name: LimitName, limit: admin_pb2.Limit) -> None:
    check_limit(limit)
    whole = admin_pb2.Limit()
    whole.CopyFrom(limit)
    whole.time_zone = limit.time_zone or "UTC"  # here absent means the default, and not as it was
    row = await edit.session.get(LimitRow, name.limit, with_for_update=True)
    if row is not None and not (_is_same_kind(row, whole) and (row.start_ms, row.end_ms) == _period_of(limit)):
        await delete_limit(edit, name)
        row = None
    if row is None:
        await create_limit(edit, name, limit)
        row = await edit.session.get_one(LimitRow, name.limit)
    else:
        await _set_cap(edit, row, limit.cap)
    row.declared = True


async def drop_limits(edit: Edit, kept: Collection[str]) -> None:
    """Deletes the limits that were declared and are not among `kept`, which are full names."""
    for row in await edit.session.scalars(select(LimitRow).where(LimitRow.declared).order_by(LimitRow.id)):
        name = LimitName(row.id)
        if str(name) not in kept:
            await delete_limit(edit, name)


def limit_message(row: LimitRow) -> admin_pb2.Limit:
    """The message of a row, without a status."""
    limit = admin_pb2.Limit(
        name=str(LimitName(row.id)),
        scope=row.scope,
        unit=LimitUnit.ValueType(row.unit),
        window=LimitWindow.ValueType(row.window_kind),
        cap=row.cap,
        time_zone=row.time_zone,
    )
    if row.start_ms is not None:
        limit.start_time.CopyFrom(timestamp_of_ms(row.start_ms))
    if row.end_ms is not None:
        limit.end_time.CopyFrom(timestamp_of_ms(row.end_ms))
    limit.uid = row.uid
    limit.etag = etag_of(limit)
    return limit


async def _set_cap(edit: Edit, row: LimitRow, cap: int) -> None:
    check_cap(cap)
    if row.cap == cap:
        return
    accounts = await _lock_accounts(
        edit, row, or_(AccountRow.window_end_ms.is_(None), AccountRow.window_end_ms > edit.wall_ms)
    )
    limit = limit_of(row)
    for key in accounts:
        if counts_in(limit, accounts.account(key).window):
            accounts.set_cap(key, cap)
    accounts.store()
    row.cap = cap
    _noted(edit, row, "updated")


async def _lock_accounts(edit: Edit, row: LimitRow, *conditions: ColumnElement[bool]) -> LockedAccounts:
    starts = await edit.session.scalars(
        select(AccountRow.window_start_ms).where(AccountRow.limit_id == row.id, *conditions)
    )
    return await LockedAccounts.lock(edit.transaction, [AccountKey(row.id, start_ms) for start_ms in starts])


def _is_same_kind(row: LimitRow, limit: admin_pb2.Limit) -> bool:
    return (
        (limit.scope or row.scope) == row.scope
        and (limit.unit or row.unit) == row.unit
        and (limit.window or row.window_kind) == row.window_kind
        and (limit.time_zone or row.time_zone) == row.time_zone
        and (not limit.HasField("start_time") or ms_of_timestamp(limit.start_time) == row.start_ms)
        and (not limit.HasField("end_time") or ms_of_timestamp(limit.end_time) == row.end_ms)
    )


def _period_of(limit: admin_pb2.Limit) -> tuple[int | None, int | None]:
    start_ms = ms_of_timestamp(limit.start_time) if limit.HasField("start_time") else None
    end_ms = ms_of_timestamp(limit.end_time) if limit.HasField("end_time") else None
    return start_ms, end_ms


async def _check_alone(session: AsyncSession, limit: admin_pb2.Limit, start_ms: int | None, end_ms: int | None) -> None:
    rows = await session.scalars(
        select(LimitRow)
        .where(LimitRow.scope == limit.scope, LimitRow.unit == limit.unit, LimitRow.window_kind == limit.window)
        .order_by(LimitRow.id)
    )
    for row in rows:
        begins_later = end_ms is not None and row.start_ms is not None and row.start_ms >= end_ms
        ended_before = start_ms is not None and row.end_ms is not None and row.end_ms <= start_ms
        if not begins_later and not ended_before:
            raise RequestError(
                f"{LimitName(row.id)} caps the same unit of {limit.scope[:200]!r} in the same windows at the same time;"
                " update that one, or give both a start_time and an end_time that do not overlap",
                Reason.RESOURCE_EXISTS,
            )


async def _check_scope(session: AsyncSession, scope: str) -> None:
    if not await _scope_exists(session, scope):
        raise RequestError(f"limit.scope {scope[:200]!r} does not exist; a limit on nothing would cap nothing")


async def _scope_exists(session: AsyncSession, scope: str) -> bool:
    if scope.startswith(_MODELS):
        models = await session.scalars(select(DeploymentRow.spec))
        return scope.removeprefix(_MODELS) in {admin_pb2.Deployment.FromString(spec).model for spec in models}
    if DeploymentName.matches(scope):
        return await session.get(DeploymentRow, DeploymentName.parse(scope).deployment) is not None
    if KeyName.matches(scope):
        key = KeyName.parse(scope)
        return await session.get(KeyRow, (key.organization, key.tenant, key.project, key.key)) is not None
    if ProjectName.matches(scope):
        project = ProjectName.parse(scope)
        return await session.get(ProjectRow, (project.organization, project.tenant, project.project)) is not None
    if TenantName.matches(scope):
        tenant = TenantName.parse(scope)
        return await session.get(TenantRow, (tenant.organization, tenant.tenant)) is not None
    if OrganizationName.matches(scope):
        return await session.get(OrganizationRow, OrganizationName.parse(scope).organization) is not None
    raise RequestError(
        f"limit.scope {scope[:200]!r} is not the name of an organization, tenant, project, key, model or deployment"
    )


async def _with_status(session: AsyncSession, rows: Sequence[LimitRow], now_ms: int) -> list[admin_pb2.Limit]:
    windows = {row.id: window_at(limit_of(row), now_ms) for row in rows}
    pairs = [(limit, window.start_ms) for limit, window in windows.items()]
    found = await session.scalars(
        select(AccountRow).where(tuple_(AccountRow.limit_id, AccountRow.window_start_ms).in_(pairs))
    )
    accounts = {account.limit_id: account for account in found}
    limits = []
    for row in rows:
        limit = limit_message(row)
        limit.status.CopyFrom(_status(row, windows[row.id], accounts.get(row.id)))
        limits.append(limit)
    return limits


def _status(row: LimitRow, window: Window, account: AccountRow | None) -> admin_pb2.LimitStatus:
    status = admin_pb2.LimitStatus(cap_effective=cap_in(limit_of(row), window))
    if account is not None:
        status = admin_pb2.LimitStatus(
            spent=account.spent,
            allotted=account.allotted,
            cap_effective=account.cap_effective,
            overrun=account.overrun,
            written_off=account.written_off,
        )
    if window.start_ms:
        status.window_start.CopyFrom(timestamp_of_ms(window.start_ms))
    if window.end_ms is not None:
        status.window_end.CopyFrom(timestamp_of_ms(window.end_ms))
    return status


def _noted(edit: Edit, row: LimitRow, what: str) -> admin_pb2.Limit:
    limit = limit_message(row)
    edit.changed(limit.name, what, limit.etag)
    return limit


async def _locked(session: AsyncSession, name: LimitName) -> LimitRow:
    row = await session.get(LimitRow, name.limit, with_for_update=True)
    if row is None:
        raise not_found(name)
    return row
