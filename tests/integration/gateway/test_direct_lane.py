"""The direct lane: the engine's own bytes, only the listed replicas, in their order."""

import gzip
import json
from dataclasses import replace

import aiohttp
import pytest

from tests.integration.gateway import stub_engine
from tests.integration.gateway.mesh import UNKNOWN, Mesh
from tests.integration.gateway.stub_router import direct

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEBIBYTE = 1024 * 1024


async def test_engine_sees_the_request_without_keys_cookies_and_our_words(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.engines[0].address, x_enginehouse_internal_ticket="ticket"))
    sent = {
        "x-api-key": "sk-2",
        "cookie": "a=b",
        "x-enginehouse-residency": "eu",
        "x-enginehouse-session": "s",
        "x-forwarded-for": "192.0.2.1",
        "accept-encoding": "gzip",
    }

    reply = await mesh.request(headers=sent)

    assert reply.status == 200
    (request,) = mesh.engines[0].requests
    assert (request.method, request.path, request.body) == ("POST", "/v1/chat/completions", b'{"model":"m"}')
    assert not {"authorization", *sent} & set(request.headers)
    ours = ("x-enginehouse-", "x-md-", "x-envoy-")
    assert [name for name in request.headers if name.startswith(ours)] == []


async def test_client_sees_the_engines_answer_and_the_decision(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.engines[0].address))

    reply = await mesh.request()

    assert reply.json["id"] == "c"
    assert reply.headers["x-enginehouse-decision"] == "decision-1"
    assert reply.headers["server"] == "enginehouse"
    assert not [name for name in reply.headers if name.startswith(("x-md-", "x-enginehouse-internal-", "x-envoy-"))]


async def test_first_of_the_list_answers(mesh: Mesh) -> None:
    for first, second in [(0, 1), (1, 0), (2, 0)]:
        mesh.reset()
        mesh.answer(direct(mesh.engines[first].address, mesh.engines[second].address))
        for _ in range(3):
            assert (await mesh.request()).status == 200
        assert len(mesh.engines[first].requests) == 3


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_gateway_errors_of_an_engine_move_to_the_next_of_the_list(mesh: Mesh, status: int) -> None:
    mesh.engines[0].serve = stub_engine.status(status)
    mesh.answer(direct(mesh.engines[0].address, mesh.engines[2].address))

    reply = await mesh.request()

    assert reply.status == 200
    assert [len(engine.requests) for engine in mesh.engines] == [1, 0, 1]
    line = await mesh.line(reply)
    assert (line["upstream_host"], line["upstream_attempts"]) == (str(mesh.engines[2].address), 2)


async def test_refused_reset_and_unknown_addresses_move_to_the_next_of_the_list(mesh: Mesh) -> None:
    mesh.engines[0].serve = stub_engine.reset
    mesh.answer(direct(mesh.dead, UNKNOWN, mesh.engines[0].address, mesh.engines[1].address))

    reply = await mesh.request(body=b'{"model":"replayed"}')

    assert reply.status == 200
    assert mesh.engines[1].requests[0].body == b'{"model":"replayed"}'
    assert mesh.engines[2].requests == []
    assert len(mesh.router.checks) == 1, "a retry is no new decision"


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_other_errors_of_an_engine_go_to_the_client(mesh: Mesh, status: int) -> None:
    mesh.engines[0].serve = stub_engine.status(status)
    mesh.answer(direct(mesh.engines[0].address, mesh.engines[1].address))

    reply = await mesh.request()

    assert (reply.status, reply.json["error"]["message"]) == (status, "engine")
    assert mesh.engines[1].requests == []


async def test_last_engines_own_error_goes_to_the_client(mesh: Mesh) -> None:
    mesh.engines[0].serve = stub_engine.status(503)
    mesh.answer(direct(mesh.dead, mesh.engines[0].address))

    reply = await mesh.request()

    assert (reply.status, reply.json["error"]["message"]) == (503, "engine")


async def test_unknown_address_is_503_and_no_other_engine_is_asked(mesh: Mesh) -> None:
    mesh.answer(direct(UNKNOWN))
    for _ in range(5):
        reply = await mesh.request()
        assert (reply.status, reply.json["error"]["code"]) == (503, "no_replica_available")
    mesh.answer(direct())  # a lane without a destination
    assert (await mesh.request()).status == 503
    assert [engine.requests for engine in mesh.engines] == [[], [], []]


async def test_list_that_is_exhausted_is_503_and_no_other_engine_is_asked(mesh: Mesh) -> None:
    mesh.engines[0].serve = stub_engine.reset
    mesh.answer(direct(mesh.dead, mesh.engines[0].address, x_envoy_max_retries="5"))

    reply = await mesh.request()

    assert reply.status == 503
    assert [len(engine.requests) for engine in mesh.engines] == [1, 0, 0]


async def test_without_a_number_of_retries_there_is_no_failover(mesh: Mesh) -> None:
    answer = direct(mesh.dead, mesh.engines[0].address)
    headers = {name: value for name, value in answer.headers.items() if name != "x-envoy-max-retries"}
    mesh.answer(replace(answer, headers=headers))

    assert (await mesh.request()).status == 503
    assert mesh.engines[0].requests == []


async def test_hung_engine_is_given_up_after_the_checks_time_per_attempt(mesh: Mesh) -> None:
    mesh.engines[0].serve = stub_engine.hang
    addresses = (mesh.engines[0].address, mesh.engines[1].address)
    mesh.answer(direct(*addresses, x_envoy_upstream_rq_per_try_timeout_ms="100"))

    assert (await mesh.request()).status == 200
    assert [len(engine.requests) for engine in mesh.engines] == [1, 1, 0]


async def test_stream_that_broke_after_its_headers_is_not_retried_and_looks_broken(mesh: Mesh) -> None:
    mesh.engines[0].serve = stub_engine.events('{"n":1}', end=stub_engine.reset)
    mesh.answer(direct(mesh.engines[0].address, mesh.engines[1].address))

    with pytest.raises(aiohttp.ClientPayloadError):
        await mesh.request()

    assert mesh.engines[1].requests == []


async def test_splices_are_applied_bit_for_bit(mesh: Mesh) -> None:
    body = '{"model":"m","input":"aéb€😀"}'.encode()
    accent = body.index("é".encode())
    splices = f"0:0:{b' '.hex()},10:1:{b'served'.hex()},{accent}:2:,{len(body)}:0:{b'  '.hex()}"
    mesh.answer(direct(mesh.engines[0].address, splices=splices))

    assert (await mesh.request(body=body)).status == 200

    (request,) = mesh.engines[0].requests
    assert request.body == ' {"model":"served","input":"ab€😀"}  '.encode()
    assert request.headers["content-length"] == str(len(request.body))


async def test_splices_are_applied_to_the_largest_body_and_on_every_attempt(mesh: Mesh) -> None:
    filler = "é".encode() * ((MEBIBYTE - 20) // 2)
    body = b'{"model":"m","p":"' + filler + b'"}'
    assert MEBIBYTE - 2 <= len(body) <= MEBIBYTE
    mesh.engines[0].serve = stub_engine.reset
    mesh.engines[1].serve = stub_engine.status(503)
    member = b',"n":1'
    splices = f"10:1:{b'served'.hex()},{len(body) - 1}:0:{member.hex()}"
    mesh.answer(direct(mesh.dead, *(engine.address for engine in mesh.engines), splices=splices))

    assert (await mesh.request(body=body)).status == 200

    expected = b'{"model":"served","p":"' + filler + b'","n":1}'
    assert [engine.requests[0].body == expected for engine in mesh.engines] == [True, True, True]


@pytest.mark.parametrize(
    "splices",
    [
        *("x", "0:0", "0:0:6", "0:0:zz", "0:99:", "99:0:", "5:1:,4:0:", "3:2:,4:1:", "0:1:,", ",0:1:", "-1:0:"),
        *("0:-1:", "0:0:61 ,1:0:61", "00000000000:0:", "0:0:61;1:0:61", "0:99999999999:", "1e1:0:"),
    ],
)
async def test_splices_that_do_not_fit_are_500_and_reach_no_engine(mesh: Mesh, splices: str) -> None:
    mesh.answer(direct(mesh.engines[0].address, splices=splices))

    reply = await mesh.request()

    assert (reply.status, reply.json["error"]["code"]) == (500, "internal")
    assert mesh.engines[0].requests == []


async def test_splices_without_a_body_are_500(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.engines[0].address, splices="0:0:20"))
    assert (await mesh.request(method="GET", body=b"")).status == 500
    assert mesh.engines[0].requests == []


async def test_compressed_body_is_decompressed_for_router_and_engine(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.engines[0].address))
    body = json.dumps({"model": "m", "p": "word " * 1000}).encode()

    reply = await mesh.request(body=gzip.compress(body), headers={"content-encoding": "gzip"})

    assert reply.status == 200
    assert mesh.router.checks[0].body == body
    (request,) = mesh.engines[0].requests
    assert request.body == body
    assert "content-encoding" not in request.headers
    assert request.headers["content-length"] == str(len(body)), "not every engine takes chunks"


async def test_body_limit_holds_after_decompression(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.engines[0].address))
    body = json.dumps({"numbers": list(range(200_000))}).encode()
    packed = gzip.compress(body)
    assert len(packed) < MEBIBYTE < len(body)

    reply = await mesh.request(body=packed, headers={"content-encoding": "gzip"})

    assert reply.status == 413
    assert mesh.router.checks == []


async def test_encoding_that_is_not_unpacked_is_told_to_the_router(mesh: Mesh) -> None:
    await mesh.request(body=b"anything", headers={"content-encoding": "br"})
    assert mesh.router.checks[0].headers["content-encoding"] == "br"


async def test_large_answer_in_one_piece_arrives(mesh: Mesh) -> None:
    text = json.dumps({"data": "x" * 20_000_000, "usage": {"prompt_tokens": 3}})
    mesh.engines[0].serve = stub_engine.json_text(text)
    mesh.answer(direct(mesh.engines[0].address))

    reply = await mesh.request()

    assert reply.body == text.encode()
    assert (await mesh.line(reply))["usage"] == {"input": 3}
