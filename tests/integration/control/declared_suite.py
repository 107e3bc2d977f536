"""What the configuration file declares, and what the first start makes."""

import pytest

from enginehouse.contract import RequestError
from enginehouse.services.control import DeclaredResources
from enginehouse.v1 import admin_pb2, ledger_pb2
from tests.integration.control.support import ORGANIZATION, TENANT, Harness, charge, deployment, running


def budget(
    cap: int,
    window: ledger_pb2.LimitWindow.ValueType = ledger_pb2.LIMIT_WINDOW_NONE,
    name: str = "budget",
    scope: str = TENANT,
) -> admin_pb2.Limit:
    return admin_pb2.Limit(name=f"limits/{name}", scope=scope, unit=ledger_pb2.LIMIT_UNIT_USD, window=window, cap=cap)


DECLARED = DeclaredResources(
    tenants=[admin_pb2.Tenant(name=TENANT, display_name="Acme")],
    limits=[budget(100), budget(50, name="model", scope="models/smollm2")],
    deployments=[deployment("d1")],
)


async def names(mesh: Harness) -> list[str]:
    tenants = await mesh.admin.ListTenants(admin_pb2.ListTenantsRequest(parent=ORGANIZATION))
    limits = await mesh.admin.ListLimits(admin_pb2.ListLimitsRequest())
    deployments = await mesh.admin.ListDeployments(admin_pb2.ListDeploymentsRequest())
    found = [tenant.name for tenant in tenants.tenants] + [limit.name for limit in limits.limits]
    found += [deployment.name for deployment in deployments.deployments]
    return [name.removeprefix(f"{ORGANIZATION}/") for name in found if not name.endswith("operators")]


class DeclaredSuite:
    """Inherited by each backend, which provides `database_url`."""

    async def test_the_first_admin_key_is_told_on_the_first_start_alone(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            assert (mesh.started.admin_secret or "").startswith("ehk_")
            assert "ehk_" not in repr(mesh.started)
        async with running(database_url) as mesh:
            assert mesh.started.admin_secret is None

    async def test_declared_resources_come_change_and_go_with_the_file(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            assert await names(mesh) == ["tenants/acme", "limits/budget", "limits/model", "deployments/d1"]
            changed = DeclaredResources(
                tenants=[admin_pb2.Tenant(name=TENANT, display_name="Acme Ltd")], limits=[budget(200)]
            )
            await mesh.control.apply_declared(changed)
            assert await names(mesh) == ["tenants/acme", "limits/budget"]
            assert (await mesh.status("budget")).cap_effective == 200
            await mesh.control.apply_declared(DeclaredResources())
            assert await names(mesh) == []

    async def test_the_same_declaration_again_changes_nothing(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            told = len(mesh.events.told)
            await mesh.control.apply_declared(DECLARED)
            assert len(mesh.events.told) == told
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            read = await mesh.admin.GetDeployment(admin_pb2.GetDeploymentRequest(name="deployments/d1"))
            assert read.revision == 1

    async def test_what_was_made_through_the_api_is_left_alone(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant("own")
            await mesh.limit("own", 10)
            await mesh.control.apply_declared(DECLARED)
            await mesh.control.apply_declared(DeclaredResources())
            assert await names(mesh) == ["tenants/own", "limits/own"]

    async def test_the_file_has_the_last_word_about_a_declared_name(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 10)
            await mesh.tenant()
            await mesh.control.apply_declared(DECLARED)
            limit = await mesh.admin.GetLimit(admin_pb2.GetLimitRequest(name="limits/budget"))
            assert (limit.scope, limit.cap) == (TENANT, 100)

    async def test_a_declared_cap_changes_open_accounts_and_keeps_what_is_spent(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            router = await mesh.router()
            allowance = await router.take("budget", 80)
            await router.settle(charge("q1", allowance, 60))
            await mesh.control.apply_declared(DeclaredResources(tenants=DECLARED.tenants, limits=[budget(70)]))
            status = await mesh.status("budget")
            assert (status.spent, status.allotted, status.cap_effective) == (60, 20, 80)

    async def test_a_limit_of_another_kind_replaces_its_namesake(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            await (await mesh.router()).take("budget", 80)
            daily = budget(100, ledger_pb2.LIMIT_WINDOW_DAY)
            await mesh.control.apply_declared(DeclaredResources(tenants=DECLARED.tenants, limits=[daily]))
            status = await mesh.status("budget")
            assert (status.allotted, status.HasField("window_end")) == (0, True)
            assert await mesh.shares() == []

    async def test_a_time_zone_that_leaves_the_file_is_utc_again(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            zoned = budget(100, ledger_pb2.LIMIT_WINDOW_DAY)
            zoned.time_zone = "Asia/Tokyo"
            for limit, zone in ((zoned, "Asia/Tokyo"), (budget(100, ledger_pb2.LIMIT_WINDOW_DAY), "UTC")):
                await mesh.control.apply_declared(DeclaredResources(tenants=DECLARED.tenants, limits=[limit]))
                read = await mesh.admin.GetLimit(admin_pb2.GetLimitRequest(name="limits/budget"))
                assert read.time_zone == zone

    async def test_a_declaration_that_is_wrong_in_one_place_changes_nothing(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            wrong = DeclaredResources(tenants=[admin_pb2.Tenant(name=f"{TENANT}2")], limits=[budget(0)])
            with pytest.raises(RequestError, match=r"limits/budget.*limit\.cap is 0"):
                await mesh.control.apply_declared(wrong)
            assert await names(mesh) == ["tenants/acme", "limits/budget", "limits/model", "deployments/d1"]

    async def test_a_limit_on_a_tenant_that_goes_with_it_is_no_obstacle(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            moved = DeclaredResources(
                tenants=[admin_pb2.Tenant(name=f"{TENANT}2")], limits=[budget(100, scope=f"{TENANT}2")]
            )
            await mesh.control.apply_declared(moved)
            assert await names(mesh) == ["tenants/acme2", "limits/budget"]
