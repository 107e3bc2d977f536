"""What Envoy answers by itself, in the dialect of the path, as the official SDKs read it."""

from collections.abc import Callable

import anthropic
import openai
import pytest

from tests.integration.gateway import stub_engine
from tests.integration.gateway.mesh import UNKNOWN, Mesh, Reply
from tests.integration.gateway.stub_router import Answer, adapter, direct

pytestmark = pytest.mark.asyncio(loop_scope="module")

LaneAnswer = Callable[..., Answer]
OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"
TOO_LARGE = b"x" * (1024 * 1024 + 1)


def assert_openai(reply: Reply, status: int, error_type: str, code: str) -> None:
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    error = reply.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (error_type, code, None)
    assert error["message"]


def assert_anthropic(reply: Reply, status: int, error_type: str) -> None:
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json) == {"type", "error", "request_id"}
    assert reply.json["type"] == "error"
    assert reply.json["error"]["type"] == error_type
    assert reply.json["error"]["message"]
    assert reply.json["request_id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/", "/v2/chat", "/metrics", "/health/x", "/enginehouse.v1.LedgerService/Enroll"])
async def test_unknown_path_is_404_without_a_check(mesh: Mesh, path: str) -> None:
    assert_openai(await mesh.request(path), 404, "invalid_request_error", "path_not_found")
    assert mesh.router.checks == []


@pytest.mark.parametrize("path", ["/v1/unheard-of", "/v1/messages/unheard-of"])
async def test_unknown_path_of_an_api_is_the_routers_to_answer(mesh: Mesh, path: str) -> None:
    await mesh.request(path)
    assert [check.path for check in mesh.router.checks] == [f"/check{path}"]


async def test_body_over_the_limit_is_413(mesh: Mesh) -> None:
    assert_openai(await mesh.request(OPENAI, TOO_LARGE), 413, "invalid_request_error", "request_too_large")
    assert_anthropic(await mesh.request(ANTHROPIC, TOO_LARGE), 413, "request_too_large")
    assert mesh.router.checks == []


async def test_body_at_the_limit_is_taken_in(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.engines[0].address))
    assert (await mesh.request(OPENAI, TOO_LARGE[1:])).status == 200


@pytest.mark.parametrize("lane", [direct, adapter])
async def test_no_replica_is_503_with_retry_after(mesh: Mesh, lane: LaneAnswer) -> None:
    mesh.answer(lane(UNKNOWN))
    openai_reply, anthropic_reply = await mesh.request(OPENAI), await mesh.request(ANTHROPIC)
    assert_openai(openai_reply, 503, "server_error", "no_replica_available")
    assert_anthropic(anthropic_reply, 503, "overloaded_error")
    assert [reply.headers["retry-after"] for reply in (openai_reply, anthropic_reply)] == ["1", "1"]


@pytest.mark.parametrize("lane", [direct, adapter])
async def test_rule_that_kept_the_others_out_is_named(mesh: Mesh, lane: LaneAnswer) -> None:
    mesh.answer(lane(UNKNOWN, x_md_excluded="residency (1 replica)"))
    for path in (OPENAI, ANTHROPIC):
        message = (await mesh.request(path)).json["error"]["message"]
        assert message.endswith("Others are kept out by: residency (1 replica)")


async def test_hung_engine_is_504(mesh: Mesh) -> None:
    mesh.engines[0].serve = stub_engine.hang
    mesh.answer(direct(mesh.engines[0].address, x_envoy_upstream_rq_per_try_timeout_ms="50"))
    assert_openai(await mesh.request(OPENAI), 504, "server_error", "engine_timeout")
    assert_anthropic(await mesh.request(ANTHROPIC), 504, "timeout_error")


async def test_dead_engine_is_503_without_words_of_the_inside(mesh: Mesh) -> None:
    mesh.answer(direct(mesh.dead))
    reply = await mesh.request(OPENAI)
    assert_openai(reply, 503, "server_error", "no_replica_available")
    assert b"connect" not in reply.body
    assert str(mesh.dead.port).encode() not in reply.body


async def test_sdks_raise_their_own_classes(mesh: Mesh) -> None:
    openai_client = openai.AsyncOpenAI(api_key="k", base_url=f"{mesh.url}/v1", max_retries=0)
    anthropic_client = anthropic.AsyncAnthropic(api_key="k", base_url=mesh.url, max_retries=0)
    mesh.answer(direct(UNKNOWN))
    async with openai_client, anthropic_client:
        with pytest.raises(openai.InternalServerError) as of_openai:
            await openai_client.chat.completions.create(model="m", messages=[])
        with pytest.raises(anthropic.InternalServerError) as of_anthropic:
            await anthropic_client.messages.create(model="m", messages=[], max_tokens=1)
        with pytest.raises(openai.APIStatusError) as too_large:
            await openai_client.chat.completions.create(model="x" * 2_000_000, messages=[])
    assert of_openai.value.code == "no_replica_available"
    assert of_anthropic.value.status_code == 503
    assert (too_large.value.status_code, too_large.value.code) == (413, "request_too_large")
