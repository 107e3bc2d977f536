"""What Envoy asks the router, and what becomes of the router's answer."""

import pytest

from tests.integration.gateway.mesh import Mesh
from tests.integration.gateway.stub_router import Answer, denied, direct

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENT_INTERNALS = {
    "x-enginehouse-internal-lane": "direct",
    "x-enginehouse-internal-destination": "127.0.0.1:1",
    "x-enginehouse-internal-principal": "organizations/o/tenants/somebody-else",
    "x-enginehouse-internal-invented": "1",
    "x-md-router": "router-1",
    "x-md-outcome": "admitted",
    "x-envoy-max-retries": "9",
    "x-envoy-original-path": "/elsewhere",
}


async def test_check_has_method_path_body_and_the_headers_of_the_contract(mesh: Mesh) -> None:
    sent = {
        "x-api-key": "sk-2",
        "anthropic-version": "2023-06-01",
        "x-enginehouse-residency": "eu",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
        "user-agent": "curl/8",
        "cookie": "a=b",
    }
    await mesh.request("/v1/messages?beta=true", b'{"model":"\xc3\xa9"}', headers=sent)

    (check,) = mesh.router.checks
    assert (check.method, check.path, check.body) == ("POST", "/check/v1/messages?beta=true", b'{"model":"\xc3\xa9"}')
    expected = {name: value for name, value in sent.items() if name not in ("user-agent", "cookie")}
    expected |= {"content-type": "application/json", "authorization": "Bearer sk-client"}
    assert {name: check.headers.get(name) for name in expected} == expected
    assert "cookie" not in check.headers
    assert "user-agent" not in check.headers or check.headers["user-agent"] != "curl/8"
    assert check.headers["x-enginehouse-internal-gateway"] == mesh.gateway.envoy_start


async def test_check_carries_binary_bodies_bit_for_bit(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.engines[0].address))
    body = bytes(range(256)) * 5

    assert (await mesh.request(body=body)).status == 200
    assert mesh.router.checks[0].body == body
    assert mesh.engines[0].requests[0].body == body


async def test_client_cannot_speak_in_the_routers_name(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.engines[0].address))

    reply = await mesh.request(headers=CLIENT_INTERNALS)

    assert reply.status == 200
    (check,) = mesh.router.checks
    assert {name for name in check.headers if name.startswith("x-enginehouse-internal-")} == {
        "x-enginehouse-internal-gateway"
    }
    assert "x-md-router" not in check.headers
    assert check.path == "/check/v1/chat/completions"
    assert "x-envoy-original-path" not in mesh.engines[0].requests[0].headers
    assert (await mesh.line(reply))["path"] == "/v1/chat/completions"


async def test_lane_of_a_client_leads_nowhere(mesh: Mesh) -> None:
    mesh.answer(Answer(200))  # an answer without a lane

    reply = await mesh.request(headers=CLIENT_INTERNALS)

    assert reply.status == 503
    assert reply.json["error"]["code"] == "no_replica_available"
    assert [engine.requests for engine in mesh.engines] == [[], [], []]
    assert mesh.router.local == []


async def test_request_id_is_ours_and_the_clients_is_kept_beside_it(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.engines[0].address))

    replies = [await mesh.request(headers={"x-request-id": "mine"}) for _ in range(2)]

    ids = [check.headers["x-request-id"] for check in mesh.router.checks]
    assert "mine" not in ids
    assert len(set(ids)) == 2
    assert [check.headers["x-client-request-id"] for check in mesh.router.checks] == ["mine", "mine"]
    assert [reply.headers["x-request-id"] for reply in replies] == ids
    assert mesh.engines[0].requests[0].headers["x-request-id"] == ids[0]


async def test_client_request_id_of_a_client_without_request_id_is_kept(mesh: Mesh) -> None:
    await mesh.request(headers={"x-client-request-id": "theirs"})
    assert mesh.router.checks[0].headers["x-client-request-id"] == "theirs"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 429, 451, 500, 502, 503, 504])
async def test_denial_reaches_the_client_as_the_router_wrote_it(mesh: Mesh, status: int) -> None:
    body = '{"error": {"message": "é 100% \\n"}}\n'.encode()
    mesh.answer(denied(status, body, retry_after="7", x_should_retry="false"))

    reply = await mesh.request()

    assert (reply.status, reply.body) == (status, body)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["retry-after"] == "7"
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-enginehouse-decision"] == "decision-2"
    assert not [name for name in reply.headers if name.startswith(("x-md-", "x-enginehouse-internal-"))]
    assert len(mesh.router.checks) == 1


async def test_denial_is_logged_with_its_owner_and_the_status_that_the_client_saw(mesh: Mesh) -> None:
    mesh.answer(denied(503, b"{}"))

    line = await mesh.line(await mesh.request())

    assert (line["router"], line["outcome"], line["decision"]) == ("router-1", "denied", "decision-2")
    assert (line["response_code"], line["response_code_details"]) == (503, "ext_authz_denied")


async def test_local_lane_ends_at_the_router_with_its_words_and_without_keys(mesh: Mesh) -> None:
    reply = await mesh.request("/v1/models", b"", method="GET", headers={"x-api-key": "sk-2", "cookie": "a=b"})

    assert reply.json == {"served_by": "router-1"}
    assert len(mesh.router.checks) == 1
    (local,) = mesh.router.local
    assert local.path == "/v1/models"
    assert local.headers["x-enginehouse-internal-principal"] == "organizations/o/tenants/t"
    assert not {"authorization", "x-api-key", "cookie"} & set(local.headers)


@pytest.mark.parametrize("path", ["/check/v1/models", "//check/v1/models", "/v1/../check/v1/models", "/healthz", "/"])
async def test_routers_own_paths_are_out_of_reach(mesh: Mesh, path: str) -> None:
    reply = await mesh.request(path, b"", method="GET")

    assert reply.status == 404
    assert mesh.router.local == []
    assert mesh.router.checks == []
