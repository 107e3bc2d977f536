"""The client's side: channels, and foreign errors turned into ours."""

from typing import Any

import grpc
import grpc.aio
from grpc_status import rpc_status

from enginehouse.contract import (
    DependencyError,
    EnginehouseError,
    InternalError,
    Reason,
    error_from_status,
)
from enginehouse.services.server.options import CHANNEL_OPTIONS

_UNREACHED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})


def channel(address: str) -> grpc.aio.Channel:
    """A plaintext channel to a process of ours.

    Args:
        address: ``host:port``, or ``unix:/path``.
    """
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


def error_from_rpc(error: grpc.aio.AioRpcError) -> EnginehouseError:
    """The error that a server of ours raised, or a `DependencyError` when none answered in time."""
    call: Any = error  # it has what from_call reads, whatever the published types say
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # its details contradict its status
        status = None
    if status is not None:
        return error_from_status(status)
    if error.code() in _UNREACHED:
        return DependencyError(f"no answer: {error.code().name}: {error.details()}", Reason.UNAVAILABLE)
    return InternalError(f"{error.code().name}: {error.details()}")
