"""Drops replicas whose engine does not do what is asked at all."""

from enginehouse.contract import Reason
from enginehouse.router.filters.filter import Kind
from enginehouse.router.replica import Replica
from enginehouse.v1.common_pb2 import Operation


class OperationFilter:
    """The engine must know the operation: chat, completion, embedding, rerank, counting tokens."""

    name = "operation"
    refusal = Reason.CAPABILITY_NOT_FOUND

    def drop(self, replica: Replica, kind: Kind) -> str | None:
        """See `Filter`."""
        if kind.operation in replica.capabilities.operations:
            return None
        return f"does not do {Operation.Name(kind.operation).removeprefix('OPERATION_').lower()}"
