"""Desired state: what is in the store after changes, absences and accidents."""

from collections.abc import Callable
from dataclasses import dataclass

from enginehouse.services.control import DeclaredResources
from enginehouse.v1 import admin_pb2
from tests.integration.control.declared_suite import DECLARED
from tests.integration.control.support import TENANT, Harness, MemoryStore, running
from tests.support.waiting import until

EVERYTHING = [
    "deployments.d1",
    "keys",
    "limits.budget",
    "limits.model",
    "policies.default",
    "tenants.default.acme",
    "tenants.default.operators",
]


@dataclass
class EmptiedStore(MemoryStore):
    """Loses all it has, and says so, in the middle of a round."""

    on_loss: Callable[[], None] | None = None

    async def put(self, key: str, value: bytes) -> None:
        await super().put(key, value)
        if key == "tenants.default.acme" and self.on_loss is not None:
            self.kept.clear()
            self.on_loss()
            self.on_loss = None


async def published(mesh: Harness) -> dict[str, bytes]:
    await mesh.control.publisher.wait_until_current()
    return mesh.store.kept


def kinds(kept: dict[str, bytes]) -> list[str]:
    return sorted(key if not key.startswith("keys.") else "keys" for key in kept)


class PublisherSuite:
    """Inherited by each backend, which provides `database_url`."""

    async def test_every_resource_is_published_as_it_is(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            kept = await published(mesh)
            assert kinds(kept) == EVERYTHING
            tenant = await mesh.admin.GetTenant(admin_pb2.GetTenantRequest(name=TENANT))
            assert admin_pb2.Tenant.FromString(kept["tenants.default.acme"]) == tenant
            limit = await mesh.admin.GetLimit(admin_pb2.GetLimitRequest(name="limits/budget"))
            limit.ClearField("status")
            assert admin_pb2.Limit.FromString(kept["limits.budget"]) == limit
            read = await mesh.admin.GetDeployment(admin_pb2.GetDeploymentRequest(name="deployments/d1"))
            assert admin_pb2.Deployment.FromString(kept["deployments.d1"]) == read
            secret = mesh.started.admin_secret or ""
            key = admin_pb2.Key.FromString(kept[f"keys.{secret.split('_')[1]}"])
            assert len(key.secret_sha256) == 32
            assert secret.startswith(key.prefix)

    async def test_a_key_comes_after_what_restrains_it_and_goes_before(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await published(mesh)
            mesh.store.log.clear()
            await mesh.control.apply_declared(DECLARED)
            project = f"{TENANT}/projects/p"
            request = admin_pb2.CreateKeyRequest(parent=project, key_id="k", role=admin_pb2.KEY_ROLE_CALLER)
            await mesh.admin.CreateKey(request)
            await published(mesh)
            order = [entry.split()[1].split(".")[0] for entry in mesh.store.log]
            assert order.index("keys") == len(order) - 1
            mesh.store.log.clear()
            await mesh.control.apply_declared(DeclaredResources())
            await published(mesh)
            assert mesh.store.log[0].startswith("delete keys.")
            assert kinds(mesh.store.kept) == ["keys", "policies.default", "tenants.default.operators"]

    async def test_a_change_writes_only_what_changed(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            await published(mesh)
            mesh.store.log.clear()
            await mesh.set_cap("budget", 101)
            await published(mesh)
            assert mesh.store.log == ["put limits.budget"]

    async def test_a_start_puts_right_what_is_wrong_and_touches_nothing_else(self, database_url: str) -> None:
        store = MemoryStore()
        async with running(database_url, store=store) as mesh:
            await mesh.control.apply_declared(DECLARED)
            right = dict(await published(mesh))
        store.kept["limits.budget"] = b"wrong"
        store.kept["limits.ghost"] = b"gone"
        store.kept["rollouts.other"] = b"not ours"
        del store.kept["tenants.default.acme"]
        store.log.clear()
        async with running(database_url, store=store) as mesh:
            assert await published(mesh) == right | {"rollouts.other": b"not ours"}
        assert sorted(store.log) == ["delete limits.ghost", "put limits.budget", "put tenants.default.acme"]

    async def test_a_store_that_is_away_for_long_loses_nothing(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await published(mesh)
            mesh.store.is_away = True
            await mesh.control.apply_declared(DECLARED)
            await mesh.limit("late", 10)
            await until(lambda: mesh.store.refused >= 3, "three attempts while the store is away")
            assert kinds(mesh.store.kept) == ["keys", "policies.default", "tenants.default.operators"]
            mesh.store.is_away = False
            assert {"limits.late", "limits.budget", "deployments.d1"} <= set(await published(mesh))

    async def test_a_store_that_is_emptied_while_it_is_written_to_is_filled_again(self, database_url: str) -> None:
        store = EmptiedStore()
        async with running(database_url, store=store) as mesh:
            store.on_loss = mesh.control.store_returned
            await mesh.control.apply_declared(DECLARED)
            await published(mesh)
            assert kinds(store.kept) == EVERYTHING

    async def test_a_store_that_came_back_empty_is_filled_again(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            right = dict(await published(mesh))
            mesh.store.kept.clear()
            mesh.control.store_returned()
            assert await published(mesh) == right
            mesh.store.kept.clear()
            await mesh.control.publisher.reconcile()
            assert mesh.store.kept == right
