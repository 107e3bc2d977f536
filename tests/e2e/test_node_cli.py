"""`enginehouse node`: what engines do and what they wrote, also of those that have been given up."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from enginehouse.v1 import admin_pb2, common_pb2, events_pb2
from tests.support.mesh import COMMAND, UserMesh, assert_says, run_alone, run_command
from tests.support.operator import Operator, operate
from tests.support.waiting import DEADLINE_S, until, until_async

SETTINGS = """\
place: eu/de
door: {port: 0, drain_grace_s: 1}
nats: {port: 0}
nodes:
  - {name: eu-de, place: eu/de, drain_grace_s: 1}
  - {name: us-va, place: us/va, drain_grace_s: 1}
deployments:
  - name: echo
    engine: &echo {kind: echo}
    placements:
      - {node: eu-de, price: {request: 0.001}, replicas: 2}
      - {node: us-va, price: {request: 0.001}}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMesh]:
    """A mesh of this module's own: its engines are killed, and one never works."""
    own = UserMesh(tmp_path_factory.mktemp("mesh"), SETTINGS)
    try:
        own.start()
        yield own
        own.stop()
    finally:
        own.abandon()


@pytest.fixture
async def operator(mesh: UserMesh) -> AsyncIterator[Operator]:
    """The operator of that mesh."""
    async with operate(mesh) as one:
        yield one


def lines_of(mesh: UserMesh, *arguments: str) -> list[str]:
    """What `enginehouse node` prints."""
    done = run_command(mesh, "node", *arguments, "--state", str(mesh.state.path))
    assert done.returncode == 0, done
    return done.stdout.splitlines()


@pytest.mark.parametrize("command", [("replicas",), ("logs", "echo-eu-de-0")], ids=" ".join)
def test_command_without_a_mesh_says_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    assert_says(run_alone(tmp_path, "node", *command), "no mesh runs in", "enginehouse up", "--state")


async def test_replicas_of_every_node_are_listed_with_their_state_and_their_address(operator: Operator) -> None:
    heading, *rows = await asyncio.to_thread(lines_of, operator.mesh, "replicas")
    assert heading.split()[:5] == ["replica", "node", "engine", "state", "address"]
    listed = {row.split()[0]: row.split()[1:5] for row in rows}
    known = await operator.replicas()
    assert set(listed) >= {"echo-eu-de-0", "echo-eu-de-1", "echo-us-va-0"}
    for replica_id in ("echo-eu-de-0", "echo-eu-de-1", "echo-us-va-0"):
        node = replica_id.removeprefix("echo-").rpartition("-")[0]
        assert listed[replica_id] == [node, "echo", "ready", known[replica_id].address]


async def test_logs_are_the_engines_last_lines(operator: Operator) -> None:
    address = (await operator.replicas())["echo-eu-de-1"].address
    lines = await asyncio.to_thread(lines_of, operator.mesh, "logs", "echo-eu-de-1", "--lines", "1")
    assert len(lines) == 1
    assert f"listening on {address}" in lines[0]


async def test_followed_logs_show_what_an_engine_writes_after_it_was_killed(operator: Operator) -> None:
    mesh, replica = operator.mesh, (await operator.replicas())["echo-us-va-0"]
    command = (*COMMAND, "node", "logs", replica.id, "--follow", "--state", str(mesh.state.path))
    pipe = asyncio.subprocess.PIPE
    follower = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=dict(mesh.environment))
    assert follower.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            assert f"listening on {replica.address}" in (await follower.stdout.readline()).decode()
            mesh.kill_engine(replica.address)
            assert f"listening on {replica.address}" in (await follower.stdout.readline()).decode()
    finally:
        follower.send_signal(signal.SIGINT)
        said = await follower.communicate()
    assert (follower.returncode, said) == (0, (b"", b""))

    async def is_back() -> bool:
        return (await operator.replicas())[replica.id].restarts == 1

    await until_async(is_back, "the engine was started again")


def test_replica_that_does_not_exist_is_answered_with_those_that_do(mesh: UserMesh) -> None:
    done = run_command(mesh, "node", "logs", "echo-nowhere-0", "--state", str(mesh.state.path))
    assert_says(done, "no node runs 'echo-nowhere-0'", "echo-eu-de-0, echo-eu-de-1, echo-us-va-0")


async def test_deployments_of_a_file_are_applied_only_where_they_can_run(operator: Operator, tmp_path: Path) -> None:
    mesh, before = operator.mesh, await operator.replicas()

    def applied(settings: str) -> "CompletedProcess[str]":
        file = tmp_path / "changed.yaml"
        file.write_text(settings)
        return run_command(mesh, "deployments", "apply", str(file), "--wait", "--state", str(mesh.state.path))

    elsewhere = SETTINGS.replace("us-va, place", "mars, place").replace("us-va, price", "mars, price")
    assert_says(await asyncio.to_thread(applied, elsewhere), "no such node", "eu-de, us-va")
    refused = await asyncio.to_thread(applied, SETTINGS.replace("kind: echo", "kind: echo, quantization: fp8"))
    assert_says(refused, "echo, revision 2, on node", "engine echo has no quantization")
    dearer = SETTINGS.replace("request: 0.001", "request: 0.002")
    done = await asyncio.to_thread(applied, dearer)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "~ echo, revision 3")
    after = await operator.replicas()
    assert {name: one.address for name, one in after.items()} == {name: one.address for name, one in before.items()}


async def test_engine_that_crashes_again_and_again_is_given_up_with_all_that_is_known_about_it(
    operator: Operator,
) -> None:
    mesh, events = operator.mesh, await operator.events()
    broken = admin_pb2.Deployment(
        model="broken",
        engine="echo",
        settings=admin_pb2.EngineSettings(arguments=["--no-such-option"]),
        placements=[admin_pb2.Placement(node="eu-de", price=common_pb2.Price(request_nanousd=1))],
    )
    await operator.admin.CreateDeployment(admin_pb2.CreateDeploymentRequest(deployment_id="broken", deployment=broken))
    await until(lambda: events.of("replica.failed"), "it is given up", 3 * DEADLINE_S)
    (event,) = events.of("replica.failed")
    failed = event.payload(events_pb2.ReplicaStateChanged)
    assert (failed.replica, failed.exit_code, failed.failure_class) == ("broken-eu-de-0", 2, "exit")
    assert failed.restarts == 4
    assert "unrecognized arguments" in (mesh.state.path / "nodes" / "eu-de" / failed.log_reference).read_text()
    row = next(row for row in await asyncio.to_thread(lines_of, mesh, "replicas") if row.startswith(failed.replica))
    assert row.split()[3] == "failed"
    assert failed.reason in row
    assert "--no-such-option" in (await asyncio.to_thread(lines_of, mesh, "logs", failed.replica, "-n", "1"))[0]
    await operator.admin.DeleteDeployment(admin_pb2.DeleteDeploymentRequest(name="deployments/broken"))
    await until(lambda: any(one.id == failed.replica for one in events.of("replica.stopped")), "it is removed")
