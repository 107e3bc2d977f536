"""Decisions told before they are made, and made again after they were."""

import asyncio
import json
from pathlib import Path

import pytest

from enginehouse.v1 import admin_pb2, router_pb2
from tests.e2e.dialects import assert_openai_error
from tests.support.caller import Caller, chat_body
from tests.support.mesh import UserMesh, run_command
from tests.support.operator import Operator
from tests.support.waiting import until_async

EXPLAIN = "/v1/enginehouse/explain"
EU_ONLY = """
policies:
  - name: everything stays in the EU
    residency: {allow: [eu]}
"""


async def replayed(mesh: UserMesh, *arguments: str) -> dict[str, object]:
    """The report of `enginehouse replay`, which must not fail."""
    ended = await asyncio.to_thread(
        run_command, mesh, "replay", "--state", str(mesh.state.path), "--since", "1h", "--json", *arguments
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report: dict[str, object] = json.loads(ended.stdout)
    return report


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_explained_is_what_is_then_done(operator: Operator, caller: Caller, path: str) -> None:
    events = await operator.events()
    body = chat_body("twin", "one", max_tokens=9, enginehouse={"quality": "high", "session": "s"})
    told = (await caller.post(f"{EXPLAIN}?path={path}", body)).json
    reply = await caller.post(path, body)
    assert reply.status == 200
    (done,) = [one for one in await events.decisions_of(caller.tenant, 1) if one.decision_id == reply.decision_id]
    assert [attempt["replica"] for attempt in told["attempts"]] == list(done.replicas) == ["twin-us-va-0"]
    assert {one["replica"]: one.get("dropped_by") for one in told["candidates"]} == {
        "twin-us-va-0": None,
        "twin-eu-de-0": "quality",
    }
    assert "address" not in told["attempts"][0]


async def test_refusal_is_explained_and_bad_requests_are_errors(caller: Caller) -> None:
    told = await caller.post(EXPLAIN, chat_body("no-such-model"))
    assert (told.status, told.json["refusal"]["reason"]) == (200, "MODEL_NOT_FOUND")
    assert_openai_error(await caller.post(EXPLAIN, {"model": "echo"}), 400, "malformed_request")
    assert_openai_error(await caller.post(f"{EXPLAIN}?path=/v1/models", {}), 405, "method_not_allowed")
    assert_openai_error(await caller.post(f"{EXPLAIN}?path=/nowhere", {}), 404, "path_not_found")


async def test_recorded_decisions_are_made_again_identically_and_by_other_rules(
    operator: Operator, caller: Caller, tmp_path: Path
) -> None:
    rule = router_pb2.Residency(allow=["eu"])
    european = await operator.caller(policy=admin_pb2.Policy(residency=rule))
    asked = [
        *(caller.chat("echo", enginehouse={"session": f"s{number}"}) for number in range(8)),
        *(caller.post("/v1/messages", chat_body("twin", max_tokens=4)) for _ in range(2)),
        *(european.chat(model) for model in ("echo", "american", "no-such-model")),
        caller.chat("american"),
    ]
    replies = await asyncio.gather(*asked)
    ids = {reply.headers.get("x-enginehouse-decision") for reply in replies} - {None}

    async def is_recorded() -> bool:
        report = await replayed(operator.mesh, "--policy", str(file))
        return bool(report["changes"])

    file = tmp_path / "policy.yaml"
    file.write_text(EU_ONLY)
    await until_async(is_recorded, "decisions are recorded", deadline_s=10)
    same = await replayed(operator.mesh)
    assert same["different"] == same["without_snapshot"] == 0, same
    assert isinstance(same["decisions"], int)
    assert same["decisions"] >= len(replies)
    other = await replayed(operator.mesh, "--policy", str(file))
    changes = other["changes"]
    assert isinstance(changes, list)
    ours = [one for one in changes if one["tenant"] == caller.tenant]
    assert {one["after"].get("refusal") for one in ours if one["model"] == "american"} == {"RESIDENCY_UNSATISFIABLE"}
    assert {one["decision_id"] for one in changes} & ids
    assert not [one for one in changes if one["tenant"] == european.tenant]
    assert all("us-va" not in "".join(one["after"].get("replicas", ())) for one in changes)


async def test_replay_with_a_file_that_is_wrong_says_where(operator: Operator, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("policies:\n  - name: a\n    residency: {allow: [atlantis]}\n")
    ended = await asyncio.to_thread(
        run_command, operator.mesh, "replay", "--state", str(operator.mesh.state.path), "--policy", str(file)
    )
    assert ended.returncode != 0
    assert "policy.yaml:3" in ended.stderr
    assert "atlantis" in ended.stderr
