"""What is wrong with a request is said with the right status, in the dialect of the path."""

from collections.abc import Mapping
from typing import TypeAlias

import grpc
import pytest

from enginehouse.services.server import channel
from enginehouse.v1 import inference_pb2, inference_pb2_grpc
from tests.e2e.dialects import ANTHROPIC_PATHS, OPENAI_PATHS, assert_error, details_of
from tests.support.caller import Caller, Reply, chat_body, generate_request, refused

BODIES: Mapping[str, Mapping[str, object]] = {
    "/v1/chat/completions": chat_body("echo"),
    "/v1/completions": {"model": "echo", "prompt": "one"},
    "/v1/embeddings": {"model": "echo", "input": "one"},
    "/v1/rerank": {"model": "echo", "query": "one", "documents": ["one"]},
    "/v1/messages": chat_body("echo", max_tokens=4),
    "/v1/messages/count_tokens": chat_body("echo"),
}
every_path = pytest.mark.parametrize("path", [*OPENAI_PATHS, *ANTHROPIC_PATHS])
GENERATE = "/enginehouse.v1.InferenceService/Generate"
AnyCall: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
AnyStream: TypeAlias = "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]"
TOO_LARGE = 2 * 1024 * 1024


async def ask(caller: Caller, method: str, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    """A request without a body, and without a key unless `headers` have it."""
    async with caller.http.request(method, f"http://{caller.door}{path}", headers=headers) as answer:
        lower = {name.lower(): value for name, value in answer.headers.items()}
        return Reply(answer.status, lower, await answer.read())


@every_path
async def test_well_formed_request_is_served(caller: Caller, path: str) -> None:
    assert (await caller.post(path, BODIES[path])).status == 200


@every_path
async def test_request_without_a_key_is_401(caller: Caller, path: str) -> None:
    reply = await caller.post(path, BODIES[path], {"authorization": ""})
    assert "API key" in assert_error(path, reply, 401, "missing_key")


@every_path
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_request_with_a_wrong_key_is_401(caller: Caller, path: str, header: str) -> None:
    wrong = caller.secret[:-1] + ("a" if caller.secret[-1] != "a" else "b")
    keys = {"authorization": f"Bearer {wrong}"} if header == "authorization" else {header: wrong, "authorization": ""}
    message = assert_error(path, await caller.post(path, BODIES[path], keys), 401, "invalid_key")
    assert wrong not in message


@every_path
async def test_unknown_model_is_404(caller: Caller, path: str) -> None:
    reply = await caller.post(path, {**BODIES[path], "model": "no-such-model"})
    assert "no-such-model" in assert_error(path, reply, 404, "model_not_found")


@every_path
async def test_malformed_json_is_400(caller: Caller, path: str) -> None:
    assert_error(path, await caller.post(path, b'{"model": "echo", '), 400, "malformed_request")


@every_path
async def test_body_with_a_key_given_twice_is_400(caller: Caller, path: str) -> None:
    body = b'{"model": "echo", "model": "twin", "messages": [{"role": "user", "content": "one"}]}'
    assert "model" in assert_error(path, await caller.post(path, body), 400, "malformed_request")


@every_path
async def test_body_above_the_limit_is_413(caller: Caller, path: str) -> None:
    body = {**BODIES[path], "user": "x" * TOO_LARGE}
    assert_error(path, await caller.post(path, body), 413, "request_too_large")


@every_path
async def test_unknown_hint_header_is_400(caller: Caller, path: str) -> None:
    reply = await caller.post(path, BODIES[path], {"x-enginehouse-regoin": "eu"})
    assert "x-enginehouse-regoin" in assert_error(path, reply, 400, "unknown_hint")


@every_path
async def test_wrong_method_is_405(caller: Caller, path: str) -> None:
    assert_error(path, await ask(caller, "GET", path, caller.headers), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/chat", "/nothing", "/", "/v1/messages/nothing"])
async def test_unknown_path_is_404(caller: Caller, path: str) -> None:
    assert_error(path, await ask(caller, "POST", path, caller.headers), 404, "path_not_found")


async def test_unknown_path_is_404_without_a_key_too(caller: Caller) -> None:
    assert_error("/v1/nothing", await ask(caller, "GET", "/v1/nothing"), 404, "path_not_found")


async def test_health_and_ready_need_no_key(caller: Caller) -> None:
    assert (await ask(caller, "GET", "/health")).json == {"status": "ok"}
    ready = await ask(caller, "GET", "/ready")
    assert ready.json["replicas"]["ready"] == ready.json["replicas"]["known"]


async def test_grpc_without_a_key_is_unauthenticated(caller: Caller) -> None:
    error = await refused(caller.grpc.Generate(generate_request("echo")))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    assert details_of(error).reason == "MISSING_KEY"


async def test_grpc_with_a_wrong_key_is_unauthenticated(caller: Caller) -> None:
    metadata = (("authorization", "Bearer ehk_000000000000_wrong"),)
    error = await refused(caller.grpc.Generate(generate_request("echo"), metadata=metadata))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    assert details_of(error).reason == "INVALID_KEY"


async def test_grpc_unknown_model_is_not_found(caller: Caller) -> None:
    for call in (
        caller.grpc.Generate(generate_request("no-such-model"), metadata=caller.metadata),
        caller.grpc.Embed(inference_pb2.EmbedRequest(model="no-such-model", input=["x"]), metadata=caller.metadata),
    ):
        error = await refused(call)
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert details_of(error).reason == "MODEL_NOT_FOUND"
        assert "no-such-model" in (error.details() or "")


async def test_grpc_bytes_that_are_no_message_are_an_invalid_argument(caller: Caller) -> None:
    async with channel(caller.door) as connection:
        call: AnyStream = connection.unary_stream(GENERATE, request_serializer=None, response_deserializer=None)
        error = await refused(call(b"\xff\xff\xff", metadata=caller.metadata))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(error).reason == "MALFORMED_REQUEST"


async def test_grpc_message_above_the_limit_is_an_invalid_argument(caller: Caller) -> None:
    error = await refused(caller.grpc.Generate(generate_request("echo", "x" * TOO_LARGE), metadata=caller.metadata))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "larger than" in (error.details() or "")


async def test_grpc_unknown_hint_is_an_invalid_argument(caller: Caller) -> None:
    metadata = (*caller.metadata, ("x-enginehouse-regoin", "eu"))
    error = await refused(caller.grpc.Generate(generate_request("echo"), metadata=metadata))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(error).reason == "UNKNOWN_HINT"


@pytest.mark.parametrize("path", ["/enginehouse.v1.InferenceService/Nothing", "/nobody.v1.Service/Nothing"])
async def test_grpc_unknown_method_is_unimplemented(caller: Caller, path: str) -> None:
    async with channel(caller.door) as connection:
        call: AnyCall = connection.unary_unary(path, request_serializer=None, response_deserializer=None)
        assert (await refused(call(b"", metadata=caller.metadata))).code() == grpc.StatusCode.UNIMPLEMENTED


async def test_grpc_client_that_compresses_is_understood(caller: Caller) -> None:
    async with channel(caller.door) as connection:
        stub = inference_pb2_grpc.InferenceServiceStub(connection)
        steps = stub.Generate(generate_request("echo"), metadata=caller.metadata, compression=grpc.Compression.Gzip)
        assert "".join([step.delta.text async for step in steps]) == "one"
