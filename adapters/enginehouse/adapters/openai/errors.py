"""Errors as the OpenAI API writes them."""

from enginehouse.adapters._json import dumps
from enginehouse.adapters.errors import JSON_TYPE, ErrorAnswer, retry_headers
from enginehouse.contract import EnginehouseError

# The words of OpenAI's error guide; its SDKs choose the class by the status.
_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
    451: "permission_error",
}
_SERVER_ERROR_STATUS_MIN = 500


def encode_error(error: EnginehouseError, request_id: str = "") -> ErrorAnswer:
    """The answer to a request that failed before anything was sent.

    Args:
        error: what went wrong.
        request_id: written into the body, so that a user can quote it.
    """
    return ErrorAnswer(error.http_status, (JSON_TYPE, *retry_headers(error)), dumps(_body(error, request_id)))


def encode_stream_error(error: EnginehouseError, request_id: str = "") -> bytes:
    """The last event of a stream that broke. No ``[DONE]`` follows, and the official SDKs raise on it."""
    return b"data: " + dumps(_body(error, request_id)) + b"\n\n"


def _body(error: EnginehouseError, request_id: str) -> dict[str, object]:
    body: dict[str, object] = {
        "message": error.message,
        "type": _type(error.http_status),
        "param": error.metadata.get("field"),
        "code": error.reason.name.lower(),
        # Not OpenAI's: for programs that know us. Its SDKs keep what they do not know.
        "enginehouse": {
            "reason": error.reason.name,
            "rule": error.metadata.get("rule"),
            "metadata": error.metadata,
            "request_id": request_id or None,
        },
    }
    return {"error": body}


def _type(status: int) -> str:
    default = "server_error" if status >= _SERVER_ERROR_STATUS_MIN else "invalid_request_error"
    return _TYPES.get(status, default)
