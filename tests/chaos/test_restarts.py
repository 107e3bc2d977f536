"""The whole mesh, killed or stopped and started again in the same folder: nothing is left behind, nothing forgotten."""

from collections.abc import Callable

from enginehouse.v1 import admin_pb2, ledger_pb2
from tests.chaos.traffic import CHAT_NANOUSD
from tests.e2e.dialects import assert_openai_error
from tests.support.caller import open_caller
from tests.support.mesh import UserMesh, wait_until
from tests.support.operator import ORGANIZATION, operate

USD = ledger_pb2.LIMIT_UNIT_USD
ADMIN_KEY_LINE = "admin key, shown this once"


def kill_up(mesh: UserMesh) -> None:
    """SIGKILL to `enginehouse up`, which has no time to tell anybody."""
    mesh.up.kill()
    mesh.up.wait()


async def test_up_that_is_killed_leaves_no_process_behind_and_its_folder_starts_again(
    new_mesh: Callable[[], UserMesh],
) -> None:
    mesh = new_mesh()
    mesh.start()
    assert len(mesh.processes()) > len(mesh.process_ids())  # the engines, too
    kill_up(mesh)
    wait_until(lambda: not mesh.processes(), "every process has ended", 5)
    mesh.assert_gone()
    mesh.start()
    async with operate(mesh) as operator:
        caller = await operator.caller()
        assert (await caller.chat("echo")).status == 200
    mesh.stop()


async def test_up_that_is_killed_while_it_starts_leaves_no_process_behind(new_mesh: Callable[[], UserMesh]) -> None:
    mesh = new_mesh()
    mesh.launch()
    wait_until(lambda: len(mesh.process_ids()) > 3, "some processes have been started", 30)
    kill_up(mesh)
    wait_until(lambda: not mesh.processes(), "every process has ended", 5)
    mesh.assert_gone()


async def test_mesh_that_is_started_again_knows_tenants_keys_and_what_is_spent(
    new_mesh: Callable[[], UserMesh],
) -> None:
    mesh = new_mesh()
    mesh.start()
    assert ADMIN_KEY_LINE in mesh.printed
    async with operate(mesh) as operator:
        caller = await operator.caller(policy=admin_pb2.Policy(models=["echo"]))
        limit = await operator.limit(caller, USD, 3 * CHAT_NANOUSD, model="echo")
        assert [(await caller.chat("echo")).status for _ in range(2)] == [200, 200]
        await operator.until_spent(limit, 2 * CHAT_NANOUSD)
    mesh.stop()
    mesh.start()
    assert ADMIN_KEY_LINE not in mesh.printed
    async with operate(mesh) as operator, open_caller(mesh.door, caller.tenant, caller.secret) as again:
        assert (await operator.status(limit)).spent == 2 * CHAT_NANOUSD
        assert (await again.chat("echo")).status == 200
        assert_openai_error(await again.chat("echo"), 402, "budget_exhausted")
        assert_openai_error(await again.chat("slow"), 404, "model_not_found")
        await operator.until_spent(limit, 3 * CHAT_NANOUSD)
    kill_up(mesh)
    wait_until(lambda: not mesh.processes(), "every process has ended", 5)
    mesh.start()
    async with operate(mesh) as operator, open_caller(mesh.door, caller.tenant, caller.secret) as again:
        assert (await operator.status(limit)).spent == 3 * CHAT_NANOUSD
        assert_openai_error(await again.chat("echo"), 402, "budget_exhausted")
        tenants = await operator.admin.ListTenants(admin_pb2.ListTenantsRequest(parent=ORGANIZATION))
        (kept,) = [one for one in tenants.tenants if one.name == caller.tenant_name]
        assert list(kept.policy.models) == ["echo"]
    mesh.stop()
