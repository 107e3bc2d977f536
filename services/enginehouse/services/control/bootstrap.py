"""What control does before anybody asks: the first organization and key, and what the configuration declares."""

from collections.abc import Sequence
from dataclasses import dataclass

from enginehouse.services.control.deployments import declare_deployments, drop_deployments
from enginehouse.services.control.edit import Edit
from enginehouse.services.control.keys import create_key
from enginehouse.services.control.limit_resources import declare_limits, drop_limits
from enginehouse.services.control.names import KeyName, OrganizationName, TenantName
from enginehouse.services.control.policies import declare_policy_set
from enginehouse.services.control.schema import OrganizationRow
from enginehouse.services.control.tenants import create_tenant, declare_tenants, drop_tenants
from enginehouse.v1 import admin_pb2

ORGANIZATION = OrganizationName("default")
ADMIN_KEY = KeyName("default", "operators", "default", "admin")
"""The first key. Its tenant is of nobody's configuration, so that no edit of a file locks the operator out."""


@dataclass(frozen=True, slots=True)
class DeclaredResources:
    """What the configuration file declares: messages with their names; output-only fields are ignored.

    Without a `policy_set` the one that was made through the API stays.
    """

    tenants: Sequence[admin_pb2.Tenant] = ()
    limits: Sequence[admin_pb2.Limit] = ()
    deployments: Sequence[admin_pb2.Deployment] = ()
    policy_set: admin_pb2.PolicySet | None = None


async def bootstrap(edit: Edit) -> str | None:
    """Makes the organization and the first key, on the first start of all.

    Returns:
        The key's secret, to be shown now or never. None on every later start.
    """
    if await edit.session.get(OrganizationRow, ORGANIZATION.organization) is not None:
        return None
    edit.session.add(OrganizationRow(id=ORGANIZATION.organization, create_ms=edit.wall_ms))
    tenant = TenantName(ADMIN_KEY.organization, ADMIN_KEY.tenant)
    await create_tenant(edit, tenant, admin_pb2.Tenant(display_name="Operators"))
    created = await create_key(edit, ADMIN_KEY, admin_pb2.KEY_ROLE_ADMIN, None)
    return created.secret


async def apply_declared(edit: Edit, declared: DeclaredResources) -> None:
    """Makes declared resources what `declared` says; all of it or, when a part is wrong, nothing.

    What was declared before and is no longer is deleted. What was made through the API is left alone, unless it has a
    declared name: then the file has the last word.

    Raises:
        RequestError: a resource is wrong; its name is in the message.
    """
    # Limits late, because their scopes must exist, and dropped first, because theirs may go. A policy may name only
    # what there is in the end: models for those of tenants, and tenants too for the rules.
    await drop_limits(edit, {limit.name for limit in declared.limits})
    await declare_deployments(edit, declared.deployments)
    await drop_deployments(edit, {deployment.name for deployment in declared.deployments})
    await edit.session.flush()
    await declare_tenants(edit, declared.tenants)
    await edit.session.flush()
    await declare_limits(edit, declared.limits)
    await drop_tenants(edit, {tenant.name for tenant in declared.tenants})
    await edit.session.flush()
    await declare_policy_set(edit, declared.policy_set)
