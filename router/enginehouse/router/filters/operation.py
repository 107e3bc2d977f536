"""Drops replicas whose engine does not do what is asked at all."""

from enginehouse.contract import Reason
from enginehouse.router.question import Option, Question
from enginehouse.v1.common_pb2 import Operation


class OperationFilter:
    """The engine must know the operation: chat, completion, embedding, rerank, counting tokens."""

    name = "operation"
    refusal = Reason.CAPABILITY_NOT_FOUND

    def drop(self, option: Option, question: Question) -> str | None:
        """See `Filter`."""
        wanted = question.request.operation
        if wanted in option.replica.capabilities.operations:
            return None
        return f"does not do {Operation.Name(wanted).removeprefix('OPERATION_').lower()}"
