import pytest
from google.protobuf.message import Message

from enginehouse.adapters import ENDPOINTS, dialect_of_path, find_endpoint
from enginehouse.adapters.grpc import frame
from enginehouse.contract import Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import chat_body, completion_body, generate_request, messages_body

OPENAI, ANTHROPIC, GRPC = common_pb2.DIALECT_OPENAI, common_pb2.DIALECT_ANTHROPIC, common_pb2.DIALECT_GRPC
SERVICE = "/enginehouse.v1.InferenceService"


def framed(message: Message) -> bytes:
    return frame(message.SerializeToString())


BODIES = {
    "/v1/chat/completions": chat_body(),
    "/v1/completions": completion_body(),
    "/v1/embeddings": b'{"model": "public", "input": "x"}',
    "/v1/rerank": b'{"model": "public", "query": "x", "documents": ["y"]}',
    "/v1/messages": messages_body(),
    "/v1/messages/count_tokens": messages_body(),
    f"{SERVICE}/Generate": framed(generate_request()),
    f"{SERVICE}/Embed": framed(inference_pb2.EmbedRequest(model="public", input=["x"])),
    f"{SERVICE}/Rerank": framed(inference_pb2.RerankRequest(model="public", query="x", documents=["y"])),
    f"{SERVICE}/CountTokens": framed(inference_pb2.CountTokensRequest(model="public", prompt="x")),
}


@pytest.mark.parametrize("path", sorted(ENDPOINTS))
def test_every_endpoint_looks_at_its_own_bodies(path: str) -> None:
    endpoint = ENDPOINTS[path]
    assert find_endpoint(endpoint.method, f"{path}?beta=true") is endpoint
    assert dialect_of_path(path) == endpoint.dialect
    if endpoint.inspect is None:
        assert path in ("/v1/models", "/v1/enginehouse/explain")
        return
    seen = endpoint.inspect(BODIES[path], {})
    assert (seen.model, seen.dialect, seen.operation) == ("public", endpoint.dialect, endpoint.operation)


def test_an_unknown_path_is_not_found() -> None:
    with pytest.raises(RequestError, match="/v1/nothing") as caught:
        find_endpoint("POST", "/v1/nothing")
    assert caught.value.reason is Reason.PATH_NOT_FOUND


def test_another_method_is_named() -> None:
    with pytest.raises(RequestError, match="takes POST, not GET") as caught:
        find_endpoint("GET", "/v1/messages")
    assert caught.value.reason is Reason.METHOD_NOT_ALLOWED


@pytest.mark.parametrize(
    ("path", "content_type", "dialect"),
    [
        ("/nothing", "", OPENAI),
        ("/v1/messages/batches", "application/json", ANTHROPIC),
        ("/v1/messages?beta=true", "", ANTHROPIC),
        ("/v1/messagesx", "", OPENAI),
        ("/nothing", "application/grpc+proto", GRPC),
        ("/enginehouse.v1.Other/Call", "", GRPC),
    ],
)
def test_errors_on_unknown_paths_are_in_the_likely_dialect(path: str, content_type: str, dialect: int) -> None:
    assert dialect_of_path(path, content_type) == dialect
