"""Takes in Envoy's gRPC access log: the prompt one of the two sinks."""

from collections.abc import AsyncIterator, Callable

import grpc
import structlog

from enginehouse.services.access_log import AccessRecord, read_entry
from enginehouse.v1 import envoy_access_log_pb2 as log

METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"

_log = structlog.get_logger(__name__)

_Context = grpc.aio.ServicerContext[log.AccessLogBatch, log.AccessLogReceipt]


class AccessLogSink:
    """Hands each entry on, in order.

    Args:
        ended: called once per entry. It must not block.
    """

    def __init__(self, ended: Callable[[AccessRecord], None]) -> None:
        self._ended = ended

    def handler(self) -> grpc.GenericRpcHandler:
        """The service under Envoy's own name."""
        service, method = METHOD.removeprefix("/").split("/")
        rpc = grpc.stream_unary_rpc_method_handler(
            self._stream,
            request_deserializer=log.AccessLogBatch.FromString,
            response_serializer=log.AccessLogReceipt.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(service, {method: rpc})

    async def _stream(
        self,
        batches: AsyncIterator[log.AccessLogBatch],
        context: _Context,
    ) -> log.AccessLogReceipt:
        async for batch in batches:
            for entry in batch.http_logs.log_entry:
                try:
                    record = read_entry(entry)
                except ValueError as error:
                    _log.error("access log entry unreadable", request_id=entry.request.request_id, error=str(error))
                else:
                    self._ended(record)
        return log.AccessLogReceipt()
