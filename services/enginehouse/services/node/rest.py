"""What the REST faces of a node share: HttpBody in, HttpBody out, and errors that stay in the client's dialect."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TypeAlias

import grpc
import structlog
from google.api import httpbody_pb2

from enginehouse.adapters.dialects import encode_error, encode_stream_error
from enginehouse.contract import EnginehouseError, InternalError
from enginehouse.services.node.calls import initial_metadata, request_id_of
from enginehouse.v1 import common_pb2

HttpBody: TypeAlias = httpbody_pb2.HttpBody
Context: TypeAlias = grpc.aio.ServicerContext[httpbody_pb2.HttpBody, httpbody_pb2.HttpBody]
JSON = "application/json"
EVENT_STREAM = "text/event-stream"
NEXT_MAY_SERVE = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
"""Statuses of a replica that another replica may not have: the ones that Envoy retries in the direct lane."""
_log = structlog.get_logger(__name__)


async def in_dialect(
    dialect: common_pb2.Dialect.ValueType, answer: AsyncIterator[HttpBody], context: Context
) -> AsyncIterator[HttpBody]:
    """Passes an answer on.

    An error before its first byte becomes an answer with the right status. One after it becomes an event that the
    client's SDK raises on, and then an end that is no success; a body that is no stream is left as it broke off.

    An error that another replica might not have is left to gRPC while nothing was sent, so that Envoy tries the next.
    """
    began = streams = False
    try:
        async for body in answer:
            streams = streams or (not began and body.content_type.startswith(EVENT_STREAM))
            began = True
            yield body
    except Exception as caught:
        error = _error_to_tell(caught, context)
        if streams:
            yield HttpBody(content_type=EVENT_STREAM, data=encode_stream_error(dialect, error, request_id_of(context)))
        if began or error.http_status in NEXT_MAY_SERVE:
            raise
        yield await _error_body(dialect, error, context)


def _error_to_tell(caught: Exception, context: Context) -> EnginehouseError:
    if isinstance(caught, EnginehouseError):
        return caught
    _log.error("call failed", request_id=request_id_of(context), exc_info=caught)
    return InternalError("internal error")


async def _error_body(dialect: common_pb2.Dialect.ValueType, error: EnginehouseError, context: Context) -> HttpBody:
    encoded = encode_error(dialect, error, request_id_of(context))
    await context.send_initial_metadata(initial_metadata(encoded.status, encoded.headers))
    return HttpBody(content_type=encoded.content_type, data=encoded.body)
