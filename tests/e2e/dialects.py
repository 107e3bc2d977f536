"""How errors look in each dialect, checked whole: one function for each, so that every test checks the same."""

from dataclasses import dataclass

import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.support.caller import Reply

OPENAI_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank")
ANTHROPIC_PATHS = ("/v1/messages", "/v1/messages/count_tokens")
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    451: "permission_error",
    503: "overloaded_error",
}
_ANTHROPIC_TYPES_BY_CODE = {"router_unavailable": "api_error"}
_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    451: "permission_error",
    503: "server_error",
}


def assert_openai_error(reply: Reply, status: int, code: str) -> str:
    """It is an error as OpenAI writes it; returns its message."""
    assert reply.status == status, reply
    assert reply.headers["content-type"].startswith("application/json")
    error = reply.json["error"]
    assert error["code"] == code, error
    # Between OpenAI's two words for a 404 its SDKs do not choose by type.
    assert status == 404 or error["type"] == _OPENAI_TYPES[status], error
    assert error["param"] is None or isinstance(error["param"], str)
    return _message(error["message"])


def assert_anthropic_error(reply: Reply, status: int, code: str = "") -> str:
    """It is an error as Anthropic writes it, who has no codes; returns its message."""
    assert reply.status == status, reply
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.json["type"] == "error"
    error = reply.json["error"]
    assert error["type"] == _ANTHROPIC_TYPES_BY_CODE.get(code, _ANTHROPIC_TYPES[status]), error
    assert reply.json["request_id"] == reply.request_id
    return _message(error["message"])


def assert_error(path: str, reply: Reply, status: int, code: str) -> str:
    """It is an error in the dialect of the path; returns its message."""
    if path.startswith("/v1/messages"):
        return assert_anthropic_error(reply, status, code)
    return assert_openai_error(reply, status, code)


@dataclass(frozen=True, slots=True)
class Details:
    """What a gRPC error says to programs."""

    reason: str
    metadata: dict[str, str]
    retry_after_s: int | None


def details_of(error: grpc.aio.AioRpcError) -> Details:
    """ErrorInfo and RetryInfo of an error."""
    status = rpc_status.from_call(error)  # pyright: ignore[reportArgumentType] (as good as a call)
    assert status is not None, error
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after_s: int | None = None
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.seconds
    assert info.domain == "enginehouse", status
    return Details(info.reason, dict(info.metadata), retry_after_s)


def _message(text: object) -> str:
    assert isinstance(text, str)
    assert text, "an error without a message"
    return text
