"""The gRPC dialect of clients, whose requests and answers are the canonical ones."""

from enginehouse.adapters.grpc.errors import encode_error, status_headers
from enginehouse.adapters.grpc.frames import frame, unframe
from enginehouse.adapters.grpc.inspection import inspect

__all__ = ["encode_error", "frame", "inspect", "status_headers", "unframe"]
