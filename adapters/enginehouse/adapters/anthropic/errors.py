"""Errors as the Anthropic API writes them."""

from enginehouse.adapters._json import dumps
from enginehouse.adapters.errors import JSON_TYPE, ErrorAnswer, retry_headers
from enginehouse.contract import EnginehouseError

# The table of Anthropic's error reference, and types/shared/error_type.py of its SDK.
_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    451: "permission_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_SERVER_ERROR_STATUS_MIN = 500


def encode_error(error: EnginehouseError, request_id: str = "") -> ErrorAnswer:
    """The answer to a request that failed before anything was sent.

    Args:
        error: what went wrong.
        request_id: written into the body and the header `request-id`, where Anthropic's SDKs look for it.
    """
    named = (("request-id", request_id),) if request_id else ()
    headers = (JSON_TYPE, *named, *retry_headers(error))
    return ErrorAnswer(error.http_status, headers, dumps(_body(error, request_id)))


def encode_stream_error(error: EnginehouseError, request_id: str = "") -> bytes:
    """The last event of a stream that broke. No `message_stop` follows, and the official SDKs raise on it."""
    return b"event: error\ndata: " + dumps(_body(error, request_id)) + b"\n\n"


def _body(error: EnginehouseError, request_id: str) -> dict[str, object]:
    body: dict[str, object] = {
        "type": "error",
        "error": {
            "type": _type(error.http_status),
            "message": error.message,
            # Not Anthropic's: for programs that know us.
            "enginehouse": {
                "reason": error.reason.name,
                "rule": error.metadata.get("rule"),
                "metadata": error.metadata,
            },
        },
    }
    if request_id:
        body["request_id"] = request_id
    return body


def _type(status: int) -> str:
    default = "api_error" if status >= _SERVER_ERROR_STATUS_MIN else "invalid_request_error"
    return _TYPES.get(status, default)
