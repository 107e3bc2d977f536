"""An engine that sleeps: no request reaches it, the operator wakes it, and what cannot sleep is refused."""

from collections.abc import Callable
from pathlib import Path

import aiohttp

from tests.conformance.engines.shim import write_program
from tests.support.caller import Reply
from tests.support.mesh import UserMesh, assert_says, run_command
from tests.support.operator import operate
from tests.support.waiting import until_async

SETTINGS = """\
place: eu/de
door: {{port: 0, drain_grace_s: 1}}
nats: {{port: 0}}
nodes:
  - {{name: eu-de, place: eu/de, drain_grace_s: 1}}
deployments:
  - name: drowsy
    engine: {{kind: vllm, program: {program}, model: {model}, arguments: [--enable-sleep-mode]}}
    placements:
      - {{node: eu-de, price: {{request: 0.001}}}}
  - name: echo
    engine: {{kind: echo}}
    placements:
      - {{node: eu-de, price: {{request: 0.001}}}}
tenants:
  - name: anywhere
"""
DROWSY, ECHO = "drowsy-eu-de-0", "echo-eu-de-0"


async def is_sleeping(address: str) -> bool:
    """What the engine itself says."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/is_sleeping") as answer:
        found: bool = (await answer.json())["is_sleeping"]
        return found


def text_of(answer: Reply) -> str:
    """What a chat was answered with."""
    text: str = answer.json["choices"][0]["message"]["content"]
    return text


async def test_replica_that_sleeps_gets_no_request_until_it_is_woken(
    new_mesh: Callable[[str], UserMesh], tmp_path: Path
) -> None:
    program = write_program(tmp_path / "vllm", "vllm", decode_rate=1000)
    mesh = new_mesh(SETTINGS.format(program=program, model=tmp_path))
    mesh.start()

    def node(*arguments: str) -> str:
        done = run_command(mesh, "node", *arguments, "--state", str(mesh.state.path))
        assert done.returncode == 0, done
        return done.stdout

    async with operate(mesh) as operator:
        caller = await operator.caller()
        before = await caller.chat("drowsy")
        assert before.status == 200
        (address,) = [row.split()[4] for row in node("replicas").splitlines() if row.startswith(DROWSY)]

        # After level 2 the engine says nonsense unless its weights are read again.
        assert f"{DROWSY} is asleep: asleep at level 2" in node("sleep", DROWSY, "--level", "2")
        assert await is_sleeping(address)
        (row,) = [row for row in node("replicas").splitlines() if row.startswith(DROWSY)]
        assert "asleep" in row

        async def is_refused() -> bool:
            return (await caller.chat("drowsy")).status == 503

        await until_async(is_refused, "the router has seen that it sleeps")
        assert (await caller.chat("echo")).status == 200

        assert f"{DROWSY} is ready" in node("wake", DROWSY)
        assert not await is_sleeping(address)

        async def is_answered_as_before() -> bool:
            answer = await caller.chat("drowsy")
            return answer.status == 200 and text_of(answer) == text_of(before)

        await until_async(is_answered_as_before, "the router has seen that it is awake")

    refused = run_command(mesh, "node", "sleep", ECHO, "--state", str(mesh.state.path))
    assert_says(refused, "engine echo cannot sleep", "engines that can are: vllm")
    unknown = run_command(mesh, "node", "wake", "nobody", "--state", str(mesh.state.path))
    assert_says(unknown, "no node runs 'nobody'", DROWSY)
    mesh.stop()
