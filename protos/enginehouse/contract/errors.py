"""The errors of Enginehouse, named by whose fault they are, and their form as google.rpc.Status."""

import math
from collections.abc import Mapping
from typing import ClassVar

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from enginehouse.contract.reasons import Reason

ERROR_DOMAIN = "enginehouse"


class EnginehouseError(Exception):
    """Root of every error that Enginehouse raises on purpose.

    Args:
        reason: what is wrong, from the list that users may see.
        message: what was wrong, with the value, and what to do. A user reads it: no prompt, no key, no internals.
        metadata: names and values for programs, for example ``{"rule": "residency"}``.
        retry_after_s: seconds after which the same request may succeed. None: not by waiting.
    """

    default_reason: ClassVar[Reason] = Reason.INTERNAL

    def __init__(
        self,
        message: str,
        reason: Reason | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after_s = retry_after_s

    @property
    def http_status(self) -> int:
        """The HTTP status of the answer."""
        return self.reason.statuses.http

    @property
    def grpc_status(self) -> int:
        """The gRPC status code (google.rpc.Code) of the answer."""
        return self.reason.statuses.grpc

    def to_status(self) -> status_pb2.Status:
        """The error as google.rpc.Status, with ErrorInfo (AIP-193) and, if waiting helps, RetryInfo."""
        info = error_details_pb2.ErrorInfo(reason=self.reason.name, domain=ERROR_DOMAIN, metadata=self.metadata)
        details = [_packed(info)]
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration(seconds=math.ceil(self.retry_after_s))
            details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status_pb2.Status(code=self.grpc_status, message=self.message, details=details)


class RequestError(EnginehouseError):
    """The caller's fault: the request cannot be served as it is written."""

    default_reason = Reason.MALFORMED_REQUEST


class PolicyRefusal(EnginehouseError):
    """A rule forbids it, and the caller is allowed to be told which."""

    default_reason = Reason.NO_REPLICA_AVAILABLE


class EngineError(EnginehouseError):
    """The replica's fault."""

    default_reason = Reason.ENGINE_FAILED


class DependencyError(EnginehouseError):
    """NATS, SQL, Envoy or another process of ours is not there."""

    default_reason = Reason.UNAVAILABLE


class InternalError(EnginehouseError):
    """Our own fault. The user is told that, and no more."""

    default_reason = Reason.INTERNAL


_FAMILIES: dict[Reason, type[EnginehouseError]] = {
    Reason.BUDGET_EXHAUSTED: PolicyRefusal,
    Reason.PRICE_ABOVE_MAXIMUM: PolicyRefusal,
    Reason.PRICE_UNKNOWN: PolicyRefusal,
    Reason.RATE_LIMITED: PolicyRefusal,
    Reason.RESIDENCY_UNSATISFIABLE: PolicyRefusal,
    Reason.RESIDENCY_REFUSED_BY_NODE: PolicyRefusal,
    Reason.NO_REPLICA_AVAILABLE: PolicyRefusal,
    Reason.ENGINE_REFUSED: EngineError,
    Reason.ENGINE_FAILED: EngineError,
    Reason.ENGINE_OVERLOADED: EngineError,
    Reason.ENGINE_TIMEOUT: EngineError,
    Reason.CONTROL_UNAVAILABLE: DependencyError,
    Reason.UNAVAILABLE: DependencyError,
    Reason.INTERNAL: InternalError,
}


def error_from_status(status: status_pb2.Status) -> EnginehouseError:
    """The error that `status` was made from; an `InternalError` when it carries no reason of ours."""
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    reason: Reason | None = None
    retry_after_s: float | None = None
    for detail in status.details:
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN and info.reason in Reason.__members__:
            reason = Reason[info.reason]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    if reason is None:
        return InternalError(status.message or "unknown error")
    family = _FAMILIES.get(reason, RequestError)
    return family(status.message, reason, metadata=dict(info.metadata), retry_after_s=retry_after_s)


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
