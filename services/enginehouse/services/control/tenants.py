"""Tenants."""

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from enginehouse.services.control.durations import timestamp_of_ms
from enginehouse.services.control.edit import Edit, about, check_etag, etag_of, exists, not_found
from enginehouse.services.control.names import WILDCARD, OrganizationName, TenantName
from enginehouse.services.control.policies import checked_tenant_policy
from enginehouse.services.control.schema import OrganizationRow, TenantRow
from enginehouse.services.control.validation import check_display_name
from enginehouse.v1 import admin_pb2


async def create_tenant(edit: Edit, name: TenantName, tenant: admin_pb2.Tenant) -> admin_pb2.Tenant:
    """Creates a tenant under an organization that exists."""
    policy = await _checked_policy(edit, name, tenant)
    organization = OrganizationName(name.organization)
    if await edit.session.get(OrganizationRow, name.organization) is None:
        raise not_found(organization)
    if await _row(edit.session, name) is not None:
        raise exists(name)
    row = TenantRow(
        organization=name.organization,
        id=name.tenant,
        display_name=tenant.display_name,
        policy=policy.SerializeToString(deterministic=True),
        create_ms=edit.wall_ms,
        declared=False,
    )
    edit.session.add(row)
    return _noted(edit, row, "created")


async def get_tenant(session: AsyncSession, name: TenantName) -> admin_pb2.Tenant:
    """The tenant of that name."""
    return tenant_of(await _known(session, name))


async def list_tenants(session: AsyncSession, parent: OrganizationName) -> list[admin_pb2.Tenant]:
    """The tenants of an organization, or of all for ``-``, by name."""
    query = select(TenantRow).order_by(TenantRow.organization, TenantRow.id)
    if parent.organization != WILDCARD:
        query = query.where(TenantRow.organization == parent.organization)
    return [tenant_of(row) for row in await session.scalars(query)]


async def update_tenant(edit: Edit, tenant: admin_pb2.Tenant) -> admin_pb2.Tenant:
    """Replaces display name and policy."""
    name = TenantName.parse(tenant.name)
    policy = await _checked_policy(edit, name, tenant)
    row = await _locked(edit.session, name)
    check_etag(tenant.name, tenant.etag, tenant_of(row).etag)
    return _replace(edit, row, tenant.display_name, policy)


async def delete_tenant(edit: Edit, name: TenantName) -> None:
    """Deletes a tenant with its projects and keys. Limits stay: what was spent under this name stays counted."""
    row = await _locked(edit.session, name)
    await edit.session.delete(row)
    edit.changed(str(name), "deleted")


async def declare_tenants(edit: Edit, tenants: Sequence[admin_pb2.Tenant]) -> None:
    """Makes the declared tenants what the configuration says."""
    for tenant in tenants:
        with about(tenant.name):
            await _declare(edit, TenantName.parse(tenant.name), tenant)


async def _declare(edit: Edit, name: TenantName, tenant: admin_pb2.Tenant) -> None:
    row = await _row(edit.session, name)
    if row is None:
        await create_tenant(edit, name, tenant)
        row = await _known(edit.session, name)
    else:
        _replace(edit, row, tenant.display_name, await _checked_policy(edit, name, tenant))
    row.declared = True


async def drop_tenants(edit: Edit, kept: Collection[str]) -> None:
    """Deletes the tenants that were declared and are not among `kept`, which are full names."""
    for row in await edit.session.scalars(select(TenantRow).where(TenantRow.declared)):
        name = TenantName(row.organization, row.id)
        if str(name) not in kept:
            await delete_tenant(edit, name)


def tenant_of(row: TenantRow) -> admin_pb2.Tenant:
    """The message of a row."""
    tenant = admin_pb2.Tenant(
        name=str(TenantName(row.organization, row.id)),
        display_name=row.display_name,
        policy=admin_pb2.Policy.FromString(row.policy),
    )
    tenant.etag = etag_of(tenant)
    tenant.create_time.CopyFrom(timestamp_of_ms(row.create_ms))
    return tenant


async def _checked_policy(edit: Edit, name: TenantName, tenant: admin_pb2.Tenant) -> admin_pb2.Policy:
    check_display_name(tenant.display_name)
    return await checked_tenant_policy(edit, str(name), tenant.policy)


def _replace(edit: Edit, row: TenantRow, display_name: str, policy: admin_pb2.Policy) -> admin_pb2.Tenant:
    before = tenant_of(row)
    row.display_name = display_name
    row.policy = policy.SerializeToString(deterministic=True)
    return before if tenant_of(row).etag == before.etag else _noted(edit, row, "updated")


def _noted(edit: Edit, row: TenantRow, what: str) -> admin_pb2.Tenant:
    tenant = tenant_of(row)
    edit.changed(tenant.name, what, tenant.etag)
    return tenant


async def _row(session: AsyncSession, name: TenantName) -> TenantRow | None:
    return await session.get(TenantRow, (name.organization, name.tenant))


async def _known(session: AsyncSession, name: TenantName) -> TenantRow:
    row = await _row(session, name)
    if row is None:
        raise not_found(name)
    return row


async def _locked(session: AsyncSession, name: TenantName) -> TenantRow:
    row = await session.get(TenantRow, (name.organization, name.tenant), with_for_update=True)
    if row is None:
        raise not_found(name)
    return row
