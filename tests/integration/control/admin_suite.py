"""What AdminService promises, whichever database is behind it."""

import asyncio
import hashlib
from collections.abc import Awaitable

import grpc.aio
from google.protobuf import duration_pb2
from sqlalchemy import select

from enginehouse.contract import Reason
from enginehouse.services.control.schema import Base, KeyRow
from enginehouse.v1 import admin_pb2, common_pb2, ledger_pb2, router_pb2
from tests.integration.control.support import ORGANIZATION, TENANT, Harness, deployment, error_of, running

PROJECT = f"{TENANT}/projects/chat"


async def reason_of(call: Awaitable[object]) -> Reason:
    return (await error_of(call)).reason


async def new_key(
    mesh: Harness,
    key_id: str = "k1",
    role: admin_pb2.KeyRole.ValueType = admin_pb2.KEY_ROLE_CALLER,
    ttl_s: int = 0,
) -> admin_pb2.CreateKeyResponse:
    request = admin_pb2.CreateKeyRequest(parent=PROJECT, key_id=key_id, role=role)
    if ttl_s:
        request.ttl.CopyFrom(duration_pb2.Duration(seconds=ttl_s))
    return await mesh.admin.CreateKey(request)


def bearer(secret: str) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(("authorization", f"Bearer {secret}"))


class AdminSuite:
    """Inherited by each backend, which provides `database_url`."""

    async def test_a_tenant_is_created_read_listed_changed_and_deleted(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.admin.CreateDeployment(
                admin_pb2.CreateDeploymentRequest(deployment_id="d1", deployment=deployment())
            )
            policy = admin_pb2.Policy(residency=router_pb2.Residency(allow=["eu"]), models=["smollm2"])
            created = await mesh.admin.CreateTenant(
                admin_pb2.CreateTenantRequest(
                    parent=ORGANIZATION, tenant_id="acme", tenant=admin_pb2.Tenant(display_name="Acme", policy=policy)
                )
            )
            assert (created.name, created.display_name, created.policy) == (TENANT, "Acme", policy)
            assert await mesh.admin.GetTenant(admin_pb2.GetTenantRequest(name=TENANT)) == created
            listed = await mesh.admin.ListTenants(admin_pb2.ListTenantsRequest(parent=ORGANIZATION))
            assert [tenant.name for tenant in listed.tenants] == [TENANT, f"{ORGANIZATION}/tenants/operators"]
            every = await mesh.admin.ListTenants(admin_pb2.ListTenantsRequest(parent="organizations/-"))
            assert every == listed
            updated = await mesh.admin.UpdateTenant(
                admin_pb2.UpdateTenantRequest(tenant=admin_pb2.Tenant(name=TENANT, etag=created.etag))
            )
            assert updated.etag != created.etag
            assert not updated.policy.models
            assert updated.create_time == created.create_time
            await mesh.admin.DeleteTenant(admin_pb2.DeleteTenantRequest(name=TENANT))
            read = mesh.admin.GetTenant(admin_pb2.GetTenantRequest(name=TENANT))
            assert await reason_of(read) is Reason.RESOURCE_NOT_FOUND

    async def test_parents_must_exist_and_names_are_taken_once(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            assert await reason_of(mesh.tenant()) is Reason.RESOURCE_EXISTS
            elsewhere = admin_pb2.CreateTenantRequest(parent="organizations/none", tenant_id="t")
            assert await reason_of(mesh.admin.CreateTenant(elsewhere)) is Reason.RESOURCE_NOT_FOUND
            orphan = admin_pb2.CreateKeyRequest(
                parent=f"{ORGANIZATION}/tenants/none/projects/p", key_id="k", role=admin_pb2.KEY_ROLE_CALLER
            )
            assert await reason_of(mesh.admin.CreateKey(orphan)) is Reason.RESOURCE_NOT_FOUND

    async def test_names_that_are_none_are_refused(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            for tenant_id in ("", "-", "A", "a.b", "a/b", "a" * 64, "ä"):
                assert await reason_of(mesh.tenant(tenant_id)) is Reason.MALFORMED_REQUEST
            for name in ("", "tenants/acme", f"{TENANT}/", f"{ORGANIZATION}/tenants/-", "organizations/default"):
                read = mesh.admin.GetTenant(admin_pb2.GetTenantRequest(name=name))
                assert await reason_of(read) is Reason.MALFORMED_REQUEST

    async def test_an_update_with_an_old_etag_is_refused(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            old = await mesh.tenant()

            def rename(display_name: str) -> Awaitable[object]:
                tenant = admin_pb2.Tenant(name=TENANT, display_name=display_name, etag=old.etag)
                return mesh.admin.UpdateTenant(admin_pb2.UpdateTenantRequest(tenant=tenant))

            results = await asyncio.gather(*(rename(f"n{turn}") for turn in range(5)), return_exceptions=True)
            assert sum(isinstance(result, admin_pb2.Tenant) for result in results) == 1
            assert await reason_of(rename("again")) is Reason.ETAG_MISMATCH

    async def test_a_wrong_policy_is_refused_with_the_field_and_value(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            policy = admin_pb2.Policy(residency=router_pb2.Residency(deny=["atlantis"]))
            tenant = admin_pb2.Tenant(name=TENANT, policy=policy)
            error = await error_of(mesh.admin.UpdateTenant(admin_pb2.UpdateTenantRequest(tenant=tenant)))
            assert error.reason is Reason.MALFORMED_REQUEST
            assert "policy.residency.deny" in error.message
            assert "'atlantis'" in error.message

    async def test_the_secret_of_a_key_is_told_once_and_stored_never(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            created = await new_key(mesh)
            assert created.secret.startswith(created.key.prefix + "_")
            assert not created.key.secret_sha256
            listed = await mesh.admin.ListKeys(admin_pb2.ListKeysRequest(parent=PROJECT))
            assert list(listed.keys) == [created.key]
            every = await mesh.admin.ListKeys(admin_pb2.ListKeysRequest(parent=f"{TENANT}/projects/-"))
            assert every == listed
            async with mesh.control.database.read() as session:
                row = await session.scalar(select(KeyRow).where(KeyRow.id == "k1"))
                assert row is not None
                assert row.secret_sha256 == hashlib.sha256(created.secret.encode()).digest()
                stored = [
                    repr(cells)
                    for table in Base.metadata.sorted_tables
                    for cells in await session.execute(select(table))
                ]
            secret_part = created.secret.removeprefix(created.key.prefix)
            told = repr(mesh.events.told) + repr(mesh.store.kept) + repr(stored)
            assert created.key.prefix in told
            assert secret_part not in told

    async def test_a_key_has_a_role_and_a_future(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            expiring = (await new_key(mesh, "k1", ttl_s=60)).key
            assert expiring.expire_time.ToMilliseconds() == mesh.clock.wall + 60_000
            assert not (await new_key(mesh, "k2")).key.HasField("expire_time")
            no_role = new_key(mesh, "k3", admin_pb2.KEY_ROLE_UNSPECIFIED)
            assert await reason_of(no_role) is Reason.MALFORMED_REQUEST
            assert await reason_of(new_key(mesh, "k4", ttl_s=-1)) is Reason.MALFORMED_REQUEST
            assert await reason_of(new_key(mesh, "k1")) is Reason.RESOURCE_EXISTS
            await mesh.admin.DeleteKey(admin_pb2.DeleteKeyRequest(name=f"{PROJECT}/keys/k1"))
            gone = mesh.admin.DeleteKey(admin_pb2.DeleteKeyRequest(name=f"{PROJECT}/keys/k1"))
            assert await reason_of(gone) is Reason.RESOURCE_NOT_FOUND

    async def test_keys_leave_with_their_tenant_and_limits_stay(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            await new_key(mesh)
            limit = admin_pb2.Limit(
                scope=PROJECT, unit=ledger_pb2.LIMIT_UNIT_USD, window=ledger_pb2.LIMIT_WINDOW_NONE, cap=10
            )
            await mesh.admin.CreateLimit(admin_pb2.CreateLimitRequest(limit_id="budget", limit=limit))
            await mesh.admin.DeleteTenant(admin_pb2.DeleteTenantRequest(name=TENANT))
            await mesh.tenant()
            assert not (await mesh.admin.ListKeys(admin_pb2.ListKeysRequest(parent=PROJECT))).keys
            assert (await mesh.status("budget")).cap_effective == 10

    async def test_over_tcp_only_a_valid_admin_key_administers(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            caller = (await new_key(mesh, "caller")).secret
            admin = (await new_key(mesh, "admin", admin_pb2.KEY_ROLE_ADMIN, ttl_s=60)).secret
            first = mesh.started.admin_secret
            assert first is not None

            def ask(metadata: grpc.aio.Metadata | None) -> Awaitable[object]:
                return mesh.admin_over_tcp.ListTenants(
                    admin_pb2.ListTenantsRequest(parent=ORGANIZATION), metadata=metadata
                )

            for secret in (admin, first):
                assert await ask(bearer(secret))
            assert await reason_of(ask(None)) is Reason.MISSING_KEY
            assert await reason_of(ask(bearer(caller))) is Reason.PERMISSION_DENIED
            forged = admin[:-1] + ("a" if admin[-1] != "a" else "b")
            for secret in (forged, "ehk_nothing", admin.replace("ehk_", "ehk-")):
                assert await reason_of(ask(bearer(secret))) is Reason.INVALID_KEY
            mesh.clock.advance(61)
            assert await reason_of(ask(bearer(admin))) is Reason.INVALID_KEY
            assert await ask(bearer(first))

    async def test_every_method_asks_for_a_key_over_tcp(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            service = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
            for method in service.methods:
                request = getattr(admin_pb2, method.input_type.name)()
                call = getattr(mesh.admin_over_tcp, method.name)(request)
                assert await reason_of(call) is Reason.MISSING_KEY, method.name

    async def test_what_an_administrator_changes_is_told_with_the_actor(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            created = await mesh.tenant()
            secret = mesh.started.admin_secret or ""
            renamed = admin_pb2.Tenant(name=TENANT, display_name="Acme")
            updated = await mesh.admin_over_tcp.UpdateTenant(
                admin_pb2.UpdateTenantRequest(tenant=renamed), metadata=bearer(secret)
            )
            await mesh.admin.UpdateTenant(admin_pb2.UpdateTenantRequest(tenant=renamed))
            await mesh.admin.DeleteTenant(admin_pb2.DeleteTenantRequest(name=TENANT))
            told = [event for event in mesh.events.told if event.subject_id == "organizations_default_tenants_acme"]
            assert {event.kind for event in told} == {"resource"}
            payloads = [(event.what, event.payload) for event in told]
            admin = "organizations/default/tenants/operators/projects/default/keys/admin"
            assert [(what, getattr(payload, "actor"), getattr(payload, "etag")) for what, payload in payloads] == [  # noqa: B009
                ("created", "operator", created.etag),
                ("updated", admin, updated.etag),
                ("deleted", "operator", ""),
            ]

    async def test_a_limit_is_created_read_listed_and_deleted(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            created = await mesh.limit("rate", 100, ledger_pb2.LIMIT_UNIT_TOKENS, ledger_pb2.LIMIT_WINDOW_HOUR)
            assert created.time_zone == "UTC"
            read = await mesh.admin.GetLimit(admin_pb2.GetLimitRequest(name="limits/rate"))
            assert read.etag == created.etag
            assert read.status.window_end.seconds - read.status.window_start.seconds == 3600
            assert read.status.cap_effective == 100
            assert (await mesh.admin.ListLimits(admin_pb2.ListLimitsRequest())).limits[0] == read
            await mesh.admin.DeleteLimit(admin_pb2.DeleteLimitRequest(name="limits/rate"))
            again = mesh.admin.DeleteLimit(admin_pb2.DeleteLimitRequest(name="limits/rate"))
            assert await reason_of(again) is Reason.RESOURCE_NOT_FOUND

    async def test_only_the_cap_of_a_limit_changes(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            created = await mesh.limit("budget", 100)
            same = admin_pb2.Limit(
                name="limits/budget", scope=ORGANIZATION, unit=created.unit, cap=200, etag=created.etag
            )
            assert (await mesh.admin.UpdateLimit(admin_pb2.UpdateLimitRequest(limit=same))).cap == 200
            assert (
                await reason_of(mesh.admin.UpdateLimit(admin_pb2.UpdateLimitRequest(limit=same)))
                is Reason.ETAG_MISMATCH
            )
            for change in (
                admin_pb2.Limit(name="limits/budget", cap=1, unit=ledger_pb2.LIMIT_UNIT_TOKENS),
                admin_pb2.Limit(name="limits/budget", cap=1, window=ledger_pb2.LIMIT_WINDOW_DAY),
                admin_pb2.Limit(name="limits/budget", cap=1, scope=TENANT),
                admin_pb2.Limit(name="limits/budget", cap=1, time_zone="Asia/Tokyo"),
                admin_pb2.Limit(name="limits/budget", cap=0),
                admin_pb2.Limit(name="limits/budget", cap=10**18 + 1),
            ):
                update = mesh.admin.UpdateLimit(admin_pb2.UpdateLimitRequest(limit=change))
                assert await reason_of(update) is Reason.MALFORMED_REQUEST
            assert (await mesh.status("budget")).cap_effective == 200

    async def test_the_scope_of_a_limit_must_exist(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            await new_key(mesh)
            await mesh.admin.CreateDeployment(
                admin_pb2.CreateDeploymentRequest(deployment_id="d1", deployment=deployment())
            )

            def create(number: int, scope: str) -> Awaitable[object]:
                limit = admin_pb2.Limit(
                    scope=scope, unit=ledger_pb2.LIMIT_UNIT_USD, window=ledger_pb2.LIMIT_WINDOW_NONE, cap=1
                )
                return mesh.admin.CreateLimit(admin_pb2.CreateLimitRequest(limit_id=f"l{number}", limit=limit))

            there = (ORGANIZATION, TENANT, PROJECT, f"{PROJECT}/keys/k1", "models/smollm2", "deployments/d1")
            for number, scope in enumerate(there):
                await create(number, scope)
            missing = (
                "organizations/x",
                f"{TENANT}x",
                f"{PROJECT}x",
                f"{PROJECT}/keys/x",
                "models/x",
                "deployments/x",
                "",
                "x",
            )
            for number, scope in enumerate(missing):
                assert await reason_of(create(100 + number, scope)) is Reason.MALFORMED_REQUEST, scope

    async def test_a_deployments_revision_grows_only_with_its_specification(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            created = await mesh.admin.CreateDeployment(
                admin_pb2.CreateDeploymentRequest(deployment_id="d1", deployment=deployment())
            )
            assert created.revision == 1

            async def update(spec: admin_pb2.Deployment) -> admin_pb2.Deployment:
                spec.name = "deployments/d1"
                return await mesh.admin.UpdateDeployment(admin_pb2.UpdateDeploymentRequest(deployment=spec))

            assert await update(deployment()) == created
            changed = await update(deployment(model="other"))
            assert (changed.revision, changed.model) == (2, "other")
            stale = deployment(model="third")
            stale.etag = created.etag
            assert await reason_of(update(stale)) is Reason.ETAG_MISMATCH
            read = await mesh.admin.GetDeployment(admin_pb2.GetDeploymentRequest(name="deployments/d1"))
            assert read == changed
            assert list((await mesh.admin.ListDeployments(admin_pb2.ListDeploymentsRequest())).deployments) == [changed]

    async def test_a_deployment_made_again_goes_on_with_the_revision(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            request = admin_pb2.CreateDeploymentRequest(deployment_id="d1", deployment=deployment())
            await mesh.admin.CreateDeployment(request)
            assert await reason_of(mesh.admin.CreateDeployment(request)) is Reason.RESOURCE_EXISTS
            await mesh.admin.DeleteDeployment(admin_pb2.DeleteDeploymentRequest(name="deployments/d1"))
            assert (await mesh.admin.CreateDeployment(request)).revision == 2

    async def test_a_deployment_without_a_price_is_refused(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            free = deployment()
            free.placements[0].price.CopyFrom(common_pb2.Price())
            error = await error_of(
                mesh.admin.CreateDeployment(admin_pb2.CreateDeploymentRequest(deployment_id="d1", deployment=free))
            )
            assert error.reason is Reason.MALFORMED_REQUEST
            assert "nothing is free" in error.message
