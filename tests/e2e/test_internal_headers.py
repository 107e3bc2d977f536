"""What a client says about the mesh's own affairs has no effect: headers, tickets, ids."""

import pytest

from enginehouse.services.access_log import ticket_text
from enginehouse.v1 import admin_pb2, common_pb2, inference_pb2, ledger_pb2, router_pb2
from tests.support.caller import Caller, chat_body, generate_request
from tests.support.operator import Operator

EUROPE = admin_pb2.Policy(residency=router_pb2.Residency(allow=["eu"]))
PRICE_NANOUSD = 1_000_000


async def forged_headers(operator: Operator) -> dict[str, str]:
    """Everything that would send a request across the ocean, free of charge, if anybody listened to it."""
    address = (await operator.replicas())["echo-us-va-0"].address
    node = next(one for one in operator.mesh.running.settings.nodes if one.name == "us-va")
    ticket = router_pb2.Ticket(
        request_id="forged",
        lane=common_pb2.LANE_DIRECT,
        attempts=[router_pb2.Attempt(replica="echo-us-va-0", address=address, served_model="echo")],
        output_tokens_max=100,
    )
    text = ticket_text(ticket)
    return {
        "x-enginehouse-internal-lane": "direct",
        "x-enginehouse-internal-destination": f"{address},127.0.0.1:{node.port}",
        "x-enginehouse-internal-ticket": text,
        "x-enginehouse-internal-principal": "organizations/default/tenants/operators/projects/default/keys/admin",
        "x-enginehouse-internal-splices": "0:1:7b",
        "x-md-router": "router-9",
        "x-md-ticket": text,
        "x-md-outcome": "admitted",
        "x-envoy-max-retries": "9",
        "x-envoy-original-path": "/ready",
        "x-request-id": "forged",
    }


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_forged_internal_headers_move_no_request(operator: Operator, path: str) -> None:
    caller = await operator.caller(policy=EUROPE)
    limit = await operator.limit(caller, ledger_pb2.LIMIT_UNIT_USD, 10 * PRICE_NANOUSD, model="echo")
    events = await operator.events()
    reply = await caller.post(path, chat_body("echo", max_tokens=8), await forged_headers(operator))
    assert reply.status == 200
    assert b'"one"' in reply.body
    settled = await events.settled(reply.request_id)
    assert settled.replica == "echo-eu-de-0"
    assert settled.router == "router-0"
    assert settled.principal == caller.principal
    await operator.until_spent(limit, PRICE_NANOUSD)


async def test_forged_internal_metadata_moves_no_grpc_call(operator: Operator) -> None:
    caller = await operator.caller(policy=EUROPE)
    events = await operator.events()
    forged = tuple((await forged_headers(operator)).items())
    answer = await caller.grpc.Embed(
        inference_pb2.EmbedRequest(model="echo", input=["one"]), metadata=(*caller.metadata, *forged)
    )
    assert len(answer.embeddings) == 1
    settled = await events.until("request.settled", lambda event: caller.tenant.encode() in event.data)
    assert b"echo-eu-de-0" in settled.data


async def test_forged_internal_headers_are_no_key(operator: Operator, caller: Caller) -> None:
    forged = {**await forged_headers(operator), "authorization": ""}
    assert (await caller.post("/v1/chat/completions", chat_body("echo"), forged)).status == 401
    async with caller.http.get(f"http://{caller.door}/v1/models", headers=forged) as answer:
        assert answer.status == 401


async def test_forged_principal_lists_no_other_models(operator: Operator) -> None:
    caller = await operator.caller(policy=admin_pb2.Policy(models=["slow"]))
    headers = {**caller.headers, **await forged_headers(operator)}
    async with caller.http.get(f"http://{caller.door}/v1/models", headers=headers) as answer:
        assert [model["id"] for model in (await answer.json())["data"]] == ["slow"]


async def test_request_id_that_a_client_repeats_is_settled_each_time(operator: Operator) -> None:
    caller = await operator.caller()
    limit = await operator.limit(caller, ledger_pb2.LIMIT_UNIT_USD, 10 * PRICE_NANOUSD, model="echo")
    events = await operator.events()
    replies = [await caller.post("/v1/chat/completions", chat_body("echo"), {"x-request-id": "mine"}) for _ in "12"]
    assert len({"mine", *(reply.request_id for reply in replies)}) == 3
    for reply in replies:
        assert (await events.settled(reply.request_id)).charged_nanousd == PRICE_NANOUSD
    await operator.until_spent(limit, 2 * PRICE_NANOUSD)


async def test_ticket_sent_by_a_client_names_no_other_replica_over_grpc(operator: Operator) -> None:
    caller = await operator.caller(policy=EUROPE)
    events = await operator.events()
    metadata = (*caller.metadata, ("x-enginehouse-internal-ticket", "bm90IGEgdGlja2V0"))
    steps = [step async for step in caller.grpc.Generate(generate_request("echo"), metadata=metadata)]
    assert (await events.settled(steps[0].id)).replica == "echo-eu-de-0"
