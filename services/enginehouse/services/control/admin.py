"""AdminService: who asks, and what each method does in which transaction."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc.aio
from google.protobuf import empty_pb2
from typing_extensions import override

from enginehouse.router import Jurisdictions
from enginehouse.services.control import deployments, keys, limit_resources, policies, tenants
from enginehouse.services.control.clock import Clock
from enginehouse.services.control.database import Database, Transaction
from enginehouse.services.control.edit import OPERATOR, Edit
from enginehouse.services.control.names import (
    DeploymentName,
    KeyName,
    LimitName,
    OrganizationName,
    PolicySetName,
    ProjectName,
    TenantName,
    checked_id,
)
from enginehouse.services.policies import InvalidPolicyError
from enginehouse.services.server import bearer_token
from enginehouse.v1 import admin_pb2, admin_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]
_T = TypeVar("_T")

_UNIX = "unix:"
_BUILT_IN = Jurisdictions()


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """Tenants, keys, limits, deployments and policies.

    Over TCP a caller shows a key with the role ADMIN. Over the Unix socket, which only the operating system's user can
    open, it is the operator and shows none.
    """

    def __init__(self, database: Database, clock: Clock, jurisdictions: Jurisdictions = _BUILT_IN) -> None:
        self._database = database
        self._clock = clock
        self._jurisdictions = jurisdictions

    @override
    async def CreateTenant(self, request: admin_pb2.CreateTenantRequest, context: _Context) -> admin_pb2.Tenant:
        """Creates a tenant."""
        actor = await self._actor(context)
        parent = OrganizationName.parse(request.parent)
        name = TenantName(parent.organization, checked_id(request.tenant_id, "tenant_id"))
        return await self._edit(actor, lambda edit: tenants.create_tenant(edit, name, request.tenant))

    @override
    async def GetTenant(self, request: admin_pb2.GetTenantRequest, context: _Context) -> admin_pb2.Tenant:
        """Reads a tenant."""
        await self._actor(context)
        name = TenantName.parse(request.name)
        async with self._database.read() as session:
            return await tenants.get_tenant(session, name)

    @override
    async def ListTenants(
        self, request: admin_pb2.ListTenantsRequest, context: _Context
    ) -> admin_pb2.ListTenantsResponse:
        """Lists the tenants of an organization."""
        await self._actor(context)
        parent = OrganizationName.parse_pattern(request.parent)
        async with self._database.read() as session:
            return admin_pb2.ListTenantsResponse(tenants=await tenants.list_tenants(session, parent))

    @override
    async def UpdateTenant(self, request: admin_pb2.UpdateTenantRequest, context: _Context) -> admin_pb2.Tenant:
        """Replaces a tenant's display name and policy."""
        actor = await self._actor(context)
        return await self._edit(actor, lambda edit: tenants.update_tenant(edit, request.tenant))

    @override
    async def DeleteTenant(self, request: admin_pb2.DeleteTenantRequest, context: _Context) -> empty_pb2.Empty:
        """Deletes a tenant with its projects and keys."""
        actor = await self._actor(context)
        name = TenantName.parse(request.name)
        await self._edit(actor, _keeping_rules(lambda edit: tenants.delete_tenant(edit, name)))
        return empty_pb2.Empty()

    @override
    async def CreateKey(self, request: admin_pb2.CreateKeyRequest, context: _Context) -> admin_pb2.CreateKeyResponse:
        """Creates a key. Its secret is in this answer and nowhere else."""
        actor = await self._actor(context)
        parent = ProjectName.parse(request.parent)
        name = KeyName(parent.organization, parent.tenant, parent.project, checked_id(request.key_id, "key_id"))
        ttl = request.ttl if request.HasField("ttl") else None
        return await self._edit(actor, lambda edit: keys.create_key(edit, name, request.role, ttl))

    @override
    async def ListKeys(self, request: admin_pb2.ListKeysRequest, context: _Context) -> admin_pb2.ListKeysResponse:
        """Lists the keys of a project."""
        await self._actor(context)
        parent = ProjectName.parse_pattern(request.parent)
        async with self._database.read() as session:
            return admin_pb2.ListKeysResponse(keys=await keys.list_keys(session, parent))

    @override
    async def DeleteKey(self, request: admin_pb2.DeleteKeyRequest, context: _Context) -> empty_pb2.Empty:
        """Deletes a key."""
        actor = await self._actor(context)
        name = KeyName.parse(request.name)
        await self._edit(actor, lambda edit: keys.delete_key(edit, name))
        return empty_pb2.Empty()

    @override
    async def CreateLimit(self, request: admin_pb2.CreateLimitRequest, context: _Context) -> admin_pb2.Limit:
        """Creates a limit."""
        actor = await self._actor(context)
        name = LimitName(checked_id(request.limit_id, "limit_id"))
        return await self._edit(actor, lambda edit: limit_resources.create_limit(edit, name, request.limit))

    @override
    async def GetLimit(self, request: admin_pb2.GetLimitRequest, context: _Context) -> admin_pb2.Limit:
        """Reads a limit and the window that is open now."""
        await self._actor(context)
        name = LimitName.parse(request.name)
        async with self._database.read() as session:
            return await limit_resources.get_limit(session, name, self._clock.wall_ms())

    @override
    async def ListLimits(self, request: admin_pb2.ListLimitsRequest, context: _Context) -> admin_pb2.ListLimitsResponse:
        """Lists the limits, each with the window that is open now."""
        await self._actor(context)
        async with self._database.read() as session:
            return admin_pb2.ListLimitsResponse(
                limits=await limit_resources.list_limits(session, self._clock.wall_ms())
            )

    @override
    async def UpdateLimit(self, request: admin_pb2.UpdateLimitRequest, context: _Context) -> admin_pb2.Limit:
        """Changes the cap of a limit, at once."""
        actor = await self._actor(context)
        return await self._edit(actor, lambda edit: limit_resources.update_limit(edit, request.limit))

    @override
    async def DeleteLimit(self, request: admin_pb2.DeleteLimitRequest, context: _Context) -> empty_pb2.Empty:
        """Deletes a limit with all that was counted under it."""
        actor = await self._actor(context)
        name = LimitName.parse(request.name)
        await self._edit(actor, lambda edit: limit_resources.delete_limit(edit, name))
        return empty_pb2.Empty()

    @override
    async def CreateDeployment(
        self, request: admin_pb2.CreateDeploymentRequest, context: _Context
    ) -> admin_pb2.Deployment:
        """Creates a deployment."""
        actor = await self._actor(context)
        name = DeploymentName(checked_id(request.deployment_id, "deployment_id"))
        return await self._edit(actor, lambda edit: deployments.create_deployment(edit, name, request.deployment))

    @override
    async def GetDeployment(self, request: admin_pb2.GetDeploymentRequest, context: _Context) -> admin_pb2.Deployment:
        """Reads a deployment."""
        await self._actor(context)
        name = DeploymentName.parse(request.name)
        async with self._database.read() as session:
            return await deployments.get_deployment(session, name)

    @override
    async def ListDeployments(
        self, request: admin_pb2.ListDeploymentsRequest, context: _Context
    ) -> admin_pb2.ListDeploymentsResponse:
        """Lists the deployments."""
        await self._actor(context)
        async with self._database.read() as session:
            return admin_pb2.ListDeploymentsResponse(deployments=await deployments.list_deployments(session))

    @override
    async def UpdateDeployment(
        self, request: admin_pb2.UpdateDeploymentRequest, context: _Context
    ) -> admin_pb2.Deployment:
        """Replaces a deployment's specification."""
        actor = await self._actor(context)
        change = _keeping_rules(lambda edit: deployments.update_deployment(edit, request.deployment))
        return await self._edit(actor, change)

    @override
    async def DeleteDeployment(self, request: admin_pb2.DeleteDeploymentRequest, context: _Context) -> empty_pb2.Empty:
        """Deletes a deployment."""
        actor = await self._actor(context)
        name = DeploymentName.parse(request.name)
        await self._edit(actor, _keeping_rules(lambda edit: deployments.delete_deployment(edit, name)))
        return empty_pb2.Empty()

    @override
    async def GetPolicySet(self, request: admin_pb2.GetPolicySetRequest, context: _Context) -> admin_pb2.PolicySet:
        """Reads the rules in force."""
        await self._actor(context)
        name = PolicySetName.parse(request.name)
        async with self._database.read() as session:
            return await policies.get_policy_set(session, name)

    @override
    async def UpdatePolicySet(
        self, request: admin_pb2.UpdatePolicySetRequest, context: _Context
    ) -> admin_pb2.PolicySet:
        """Replaces the rules, or only says what that would lead to."""
        actor = await self._actor(context)
        if request.validate_only:
            async with self._database.read() as session:
                return await policies.check_policy_set(session, request.policy_set, self._jurisdictions)
        return await self._edit(actor, lambda edit: policies.update_policy_set(edit, request.policy_set))

    @override
    async def ReportRefusedPolicySet(
        self, request: admin_pb2.ReportRefusedPolicySetRequest, context: _Context
    ) -> empty_pb2.Empty:
        """Tells everybody that a file could not be read as a set of rules."""
        actor = await self._actor(context)
        refused = policies.refused_file(PolicySetName.parse(request.name), list(request.problems))
        await policies.announce_refusal(self._database, actor, refused)
        return empty_pb2.Empty()

    async def _actor(self, context: _Context) -> str:
        if context.peer().startswith(_UNIX):
            return OPERATOR
        secret = bearer_token(context.invocation_metadata())
        async with self._database.read() as session:
            return str(await keys.name_of_admin(session, secret, self._clock.wall_ms()))

    async def _edit(self, actor: str, change: Callable[[Edit], Awaitable[_T]]) -> _T:
        async def work(transaction: Transaction) -> _T:
            return await change(Edit(transaction, actor, self._clock.wall_ms(), self._jurisdictions))

        try:
            return await self._database.write(work)
        except InvalidPolicyError as error:
            await policies.announce_refusal(self._database, actor, error)
            raise


def _keeping_rules(change: Callable[[Edit], Awaitable[_T]]) -> Callable[[Edit], Awaitable[_T]]:
    """The change, undone when a rule in force would then name what is no longer there."""

    async def checked(edit: Edit) -> _T:
        result = await change(edit)
        await policies.check_rules_still_hold(edit)
        return result

    return checked
