"""Errors as gRPC carries them: google.rpc.Status, and the headers that hold it where only HTTP is at hand."""

import base64
from urllib.parse import quote

from enginehouse.adapters.errors import ErrorAnswer, retry_headers
from enginehouse.contract import EnginehouseError

# What "PROTOCOL-HTTP2.md" of gRPC leaves as it is in grpc-message: space to "~", less "%".
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_MESSAGE_BYTES_MAX = 1024


def encode_error(error: EnginehouseError, request_id: str = "") -> ErrorAnswer:  # noqa: ARG001 (the same for every dialect)
    """A denial made over HTTP that a gRPC client reads as a status with details; its body is empty."""
    return ErrorAnswer(error.http_status, (*status_headers(error), *retry_headers(error)), b"")


def status_headers(error: EnginehouseError) -> tuple[tuple[str, str], ...]:
    """`grpc-status`, `grpc-message` (percent-encoded) and `grpc-status-details-bin` (base64 without padding)."""
    details = base64.b64encode(error.to_status().SerializeToString()).decode().rstrip("=")
    return (
        ("content-type", "application/grpc"),
        ("grpc-status", str(error.grpc_status)),
        ("grpc-message", quote(error.message[:_MESSAGE_BYTES_MAX], safe=_PLAIN)),
        ("grpc-status-details-bin", details),
    )
