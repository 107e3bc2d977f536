"""Which door a request came through: the one place that knows paths."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from enginehouse.adapters import anthropic, grpc, openai
from enginehouse.adapters.errors import ErrorAnswer
from enginehouse.adapters.inspection import Inspection
from enginehouse.contract import EnginehouseError, Reason, RequestError
from enginehouse.v1 import common_pb2

GRPC_PREFIX = "/enginehouse.v1."
_GRPC_TYPE = "application/grpc"
EXPLAIN_PATH = "/v1/enginehouse/explain"
"""Takes the body of any other request and answers with what would be decided."""
_ANTHROPIC_PREFIX = "/v1/messages"

Inspect = Callable[[bytes, Mapping[str, str]], Inspection]
EncodeError = Callable[[EnginehouseError, str], ErrorAnswer]
EncodeStreamError = Callable[[EnginehouseError, str], bytes]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method and path that clients may use.

    Attributes:
        operation: UNSPECIFIED for the list of models, which asks no engine.
        inspect: looks at a body and its headers (names in lower case). None: there is nothing to look at.
    """

    method: str
    path: str
    dialect: common_pb2.Dialect.ValueType
    operation: common_pb2.Operation.ValueType
    inspect: Inspect | None = None


def _endpoints() -> Mapping[str, Endpoint]:
    openai_door, anthropic_door = common_pb2.DIALECT_OPENAI, common_pb2.DIALECT_ANTHROPIC
    posts = (
        ("/v1/chat/completions", openai_door, common_pb2.OPERATION_CHAT, openai.inspect),
        ("/v1/completions", openai_door, common_pb2.OPERATION_COMPLETION, openai.inspect),
        ("/v1/embeddings", openai_door, common_pb2.OPERATION_EMBEDDING, openai.inspect),
        ("/v1/rerank", openai_door, common_pb2.OPERATION_RERANK, openai.inspect),
        ("/v1/messages", anthropic_door, common_pb2.OPERATION_CHAT, anthropic.inspect),
        ("/v1/messages/count_tokens", anthropic_door, common_pb2.OPERATION_COUNT_TOKENS, anthropic.inspect),
    )
    calls = (
        ("Generate", common_pb2.OPERATION_CHAT),
        ("Embed", common_pb2.OPERATION_EMBEDDING),
        ("Rerank", common_pb2.OPERATION_RERANK),
        ("CountTokens", common_pb2.OPERATION_COUNT_TOKENS),
    )
    endpoints = [Endpoint("POST", path, door, what, partial(inspect, what)) for path, door, what, inspect in posts]
    endpoints += [
        Endpoint(
            "POST",
            f"{GRPC_PREFIX}InferenceService/{name}",
            common_pb2.DIALECT_GRPC,
            what,
            partial(grpc.inspect, what),
        )
        for name, what in calls
    ]
    endpoints.append(Endpoint("GET", "/v1/models", openai_door, common_pb2.OPERATION_UNSPECIFIED))
    endpoints.append(Endpoint("POST", EXPLAIN_PATH, openai_door, common_pb2.OPERATION_UNSPECIFIED))
    return {endpoint.path: endpoint for endpoint in endpoints}


ENDPOINTS = _endpoints()
_ERROR_ENCODERS: Mapping[common_pb2.Dialect.ValueType, EncodeError] = {
    common_pb2.DIALECT_GRPC: grpc.encode_error,
    common_pb2.DIALECT_OPENAI: openai.encode_error,
    common_pb2.DIALECT_ANTHROPIC: anthropic.encode_error,
}
_STREAM_ERROR_ENCODERS: Mapping[common_pb2.Dialect.ValueType, EncodeStreamError] = {
    common_pb2.DIALECT_OPENAI: openai.encode_stream_error,
    common_pb2.DIALECT_ANTHROPIC: anthropic.encode_stream_error,
}


def find_endpoint(method: str, path: str) -> Endpoint:
    """The endpoint that a request asks for; a query string is no part of it.

    Raises:
        RequestError: PATH_NOT_FOUND, or METHOD_NOT_ALLOWED on a path that takes another method.
    """
    plain = path.partition("?")[0]
    endpoint = ENDPOINTS.get(plain)
    if endpoint is None:
        raise RequestError(f"there is no path {plain[:80]!r}; see the list in the documentation", Reason.PATH_NOT_FOUND)
    if endpoint.method != method:
        message = f"{plain} takes {endpoint.method}, not {method[:20]}"
        raise RequestError(message, Reason.METHOD_NOT_ALLOWED)
    return endpoint


def dialect_of_path(path: str, content_type: str = "") -> common_pb2.Dialect.ValueType:
    """The dialect in which a client on this path, known or not, understands an error.

    Args:
        path: as requested.
        content_type: of the request; "application/grpc" and its variants decide whatever the path is.
    """
    if content_type.startswith(_GRPC_TYPE) or path.startswith(GRPC_PREFIX):
        return common_pb2.DIALECT_GRPC
    plain = path.partition("?")[0]
    if plain == _ANTHROPIC_PREFIX or plain.startswith(_ANTHROPIC_PREFIX + "/"):
        return common_pb2.DIALECT_ANTHROPIC
    return common_pb2.DIALECT_OPENAI


def encode_error(dialect: common_pb2.Dialect.ValueType, error: EnginehouseError, request_id: str = "") -> ErrorAnswer:
    """The answer to a request that failed before anything was sent, in the client's dialect."""
    return _ERROR_ENCODERS[dialect](error, request_id)


def encode_stream_error(dialect: common_pb2.Dialect.ValueType, error: EnginehouseError, request_id: str = "") -> bytes:
    """The last event of a stream that broke, in the client's dialect; empty for gRPC, which ends with a status."""
    encode = _STREAM_ERROR_ENCODERS.get(dialect)
    return encode(error, request_id) if encode else b""
