"""The `enginehouse` command in front of a mesh that runs, and around the life of one."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.support.caller import Caller, open_caller
from tests.support.mesh import COMMAND, UserMesh, assert_says, run_alone, run_command, wait_until
from tests.support.operator import Operator, operate
from tests.support.waiting import until, until_async

MINIMAL = """\
place: eu/de
door: {port: 0, drain_grace_s: 1}
nats: {port: 0}
nodes:
  - {name: eu-de, place: eu/de, drain_grace_s: 1}
deployments:
  - name: echo
    engine: {kind: echo, arguments: [--test-controls]}
    placements:
      - {node: eu-de, price: {request: 0.001}}
tenants:
  - name: anywhere
"""
# What the tour asks for, by engines that need no model.
TOUR = """\
place: eu/de
door: {port: 0, drain_grace_s: 1}
nats: {port: 0}
nodes:
  - {name: eu-de, place: eu/de, drain_grace_s: 1}
  - {name: us-va, place: us/va, drain_grace_s: 1}
deployments:
  - name: smollm2
    engine: &echo {kind: echo, context_tokens_max: 4096, output_tokens_max: 256, parallel: 64}
    placements:
      - {node: eu-de, quality: high, price: {input: 0.20, output: 0.80}}
      - {node: us-va, quality: standard, price: {input: 0.05, output: 0.20}}
  - name: e5
    engine: *echo
    placements:
      - {node: eu-de, price: {input: 0.02}}
  - name: echo
    engine: *echo
    placements:
      - {node: eu-de, price: {request: 0.001}}
      - {node: us-va, price: {request: 0.001}}
"""


async def until_status(caller: Caller, status: int) -> None:
    """Waits until a chat is answered with that status."""

    async def is_answered() -> bool:
        return (await caller.chat("echo")).status == status

    await until_async(is_answered, f"a chat is answered with {status}")


def lines_of(mesh: UserMesh, *arguments: str) -> list[str]:
    """What a command prints that ends well."""
    done = run_command(mesh, *arguments)
    assert done.returncode == 0, done
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "command",
    [("explain", "echo"), ("events", "tail"), ("keys", "list", "--tenant", "a"), ("limits", "list"), ("demo",)],
    ids=" ".join,
)
def test_command_without_a_mesh_says_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    assert_says(run_alone(tmp_path, *command), "no mesh runs in", "enginehouse up", "--state")


def test_second_mesh_in_one_folder_is_refused(mesh: UserMesh) -> None:
    before = mesh.state.processes()
    done = run_command(mesh, "up", "--no-ui", "--config", str(mesh.config), "--state", str(mesh.state.path))
    assert_says(done, str(mesh.state.path), f"process {mesh.up.pid}", "Ctrl-C", "--state")
    assert mesh.state.processes() == before
    assert mesh.state.is_in_use


def test_explain_shows_every_candidate_and_what_dropped_it(mesh: UserMesh) -> None:
    done = run_command(mesh, "explain", "echo", "--tenant", "europe", "--state", str(mesh.state.path))
    assert done.returncode == 0, done
    assert "goes to echo-eu-de-0 in the direct lane" in done.stdout
    assert "limit everything" in done.stdout
    (dropped,) = [line for line in done.stdout.splitlines() if line.startswith("echo-us-va-0")]
    assert "residency" in dropped


def test_explain_shows_a_refusal_as_json(mesh: UserMesh) -> None:
    state = str(mesh.state.path)
    done = run_command(mesh, "explain", "echo", "--chip", "tpu", "--json", "--state", state)
    decision = json.loads(done.stdout)
    assert (decision["refusal"]["reason"], decision["refusal"]["http_status"]) == ("CHIP_NOT_FOUND", 404)
    assert {one["dropped_by"] for one in decision["candidates"]} == {"chip"}
    assert_says(run_command(mesh, "explain", "echo", "--chip", "abacus", "--state", state), "abacus")
    assert_says(run_command(mesh, "explain", "echo", "--dialect", "latin", "--state", state), "latin")


async def test_key_made_by_the_command_works_until_it_is_deleted(operator: Operator) -> None:
    mesh = operator.mesh
    state = ("--state", str(mesh.state.path))
    made = run_command(mesh, "keys", "create", "--tenant", "anywhere", "--key", "by-hand", "--days", "1", *state)
    assert made.returncode == 0, made
    secret = made.stdout.strip()
    async with open_caller(mesh.door, "anywhere", secret) as caller:
        await until_status(caller, 200)
        listed = run_command(mesh, "keys", "list", "--tenant", "anywhere", *state).stdout
        (line,) = [line for line in listed.splitlines() if line.startswith("by-hand")]
        assert "caller" in line
        assert secret not in listed
        assert run_command(mesh, "keys", "delete", "by-hand", "--tenant", "anywhere", *state).returncode == 0
        await until_status(caller, 401)
    refused = run_command(mesh, "keys", "delete", "by-hand", "--tenant", "anywhere", *state)
    assert_says(refused, "by-hand")


def test_tenants_limits_and_deployments_are_listed(mesh: UserMesh) -> None:
    state = ("--state", str(mesh.state.path))
    (tenant,) = [line for line in lines_of(mesh, "tenants", "list", *state) if line.startswith("europe")]
    assert "eu" in tenant.split()
    (limit,) = [line for line in lines_of(mesh, "limits", "list", *state) if line.startswith("everything")]
    assert {"default", "month", "usd", "1000"} <= set(limit.split())
    (deployment,) = [line for line in lines_of(mesh, "deployments", "list", *state) if line.startswith("twin")]
    assert "eu-de, us-va" in deployment


async def test_events_tail_shows_what_happens_as_it_happens(operator: Operator, caller: Caller) -> None:
    mesh, subject = operator.mesh, "enginehouse.*.request.*.settled"
    command = (*COMMAND, "events", "tail", "--json", "--subject", subject, "--state", str(mesh.state.path))
    pipe = asyncio.subprocess.PIPE
    tail = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=dict(mesh.environment))
    assert tail.stdout is not None
    assert tail.stderr is not None
    try:
        assert f"listening on {subject}" in (await tail.stderr.readline()).decode()
        reply = await caller.chat("echo")
        event = json.loads(await tail.stdout.readline())
    finally:
        tail.send_signal(signal.SIGINT)
        said = await tail.communicate()
    assert (tail.returncode, said) == (0, (b"", b""))
    assert event["data"]["request_id"] == reply.request_id
    assert event["headers"]["ce-type"] == "enginehouse.request.settled.v1"
    assert event["subject"].endswith(f".{reply.request_id}.settled")


def test_ctrl_c_while_it_starts_leaves_nothing(new_mesh: Callable[[str], UserMesh]) -> None:
    mesh = new_mesh(MINIMAL)
    mesh.launch()
    wait_until(lambda: len(mesh.state.processes()) > 2, "processes have been started", 30)
    mesh.stop()


async def test_second_ctrl_c_forces(new_mesh: Callable[[str], UserMesh]) -> None:
    mesh = new_mesh(MINIMAL.replace("drain_grace_s: 1", "drain_grace_s: 600"))
    mesh.start()
    async with operate(mesh) as operator:
        caller, engine = await operator.caller(), await operator.engine("echo-eu-de-0")
        await engine.close_gate()
        asked = asyncio.ensure_future(caller.chat("echo"))
        await engine.until_waiting_at_gate(1)
        mesh.up.send_signal(signal.SIGINT)
        await until(lambda: "draining and stopping" in mesh.printed, "it drains")
        assert mesh.up.poll() is None
        assert not asked.done()
        mesh.up.send_signal(signal.SIGINT)
        await until(lambda: mesh.up.poll() is not None, "it has ended")
        with contextlib.suppress(aiohttp.ClientError):  # unless Envoy was there to say so, and the gateway gone
            assert (await asked).status == 503
    mesh.assert_gone()


def test_tour_of_a_running_mesh_shows_every_promise(new_mesh: Callable[[str], UserMesh]) -> None:
    mesh = new_mesh(TOUR)
    mesh.start()
    done = run_command(mesh, "demo", "--state", str(mesh.state.path), timeout_s=120)
    assert done.returncode == 0, (done, mesh.story())
    for words in ("europe is refused: 503", "10 served, 22 refused with [402]", "europe is served again", "That was"):
        assert words in done.stdout
    listed = lines_of(mesh, "tenants", "list", "--state", str(mesh.state.path))
    assert not [line for line in listed if line.startswith("tour-")]
    mesh.stop()
