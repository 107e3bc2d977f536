"""Every reason that a user may be told, with the statuses it carries.

What is not listed here is `INTERNAL` to a user, whatever it is to an operator.
"""

from dataclasses import dataclass
from enum import Enum, unique
from http import HTTPStatus

from google.rpc import code_pb2


@dataclass(frozen=True, slots=True)
class Statuses:
    """The HTTP status, and the gRPC status code of google.rpc.Code."""

    http: int
    grpc: int


@unique
class Reason(Enum):
    """Upper snake case names, as ErrorInfo.reason wants them (AIP-193)."""

    MALFORMED_REQUEST = 1
    UNKNOWN_HINT = 2
    CONTEXT_TOO_LONG = 3
    UNSUPPORTED_FIELD = 4
    MISSING_KEY = 5
    INVALID_KEY = 6
    PERMISSION_DENIED = 7
    MODEL_NOT_FOUND = 8
    PATH_NOT_FOUND = 9
    CAPABILITY_NOT_FOUND = 10
    CHIP_NOT_FOUND = 11
    QUALITY_NOT_FOUND = 12
    RESOURCE_NOT_FOUND = 13
    RESOURCE_EXISTS = 14
    ETAG_MISMATCH = 15
    METHOD_NOT_ALLOWED = 16
    REQUEST_TOO_LARGE = 17
    BUDGET_EXHAUSTED = 18
    PRICE_ABOVE_MAXIMUM = 19
    PRICE_UNKNOWN = 20
    RATE_LIMITED = 21
    RESIDENCY_UNSATISFIABLE = 22
    RESIDENCY_REFUSED_BY_NODE = 23
    NO_REPLICA_AVAILABLE = 24
    CONTROL_UNAVAILABLE = 25
    STALE_FENCE = 26
    STALE_REVISION = 27
    ENGINE_REFUSED = 28
    ENGINE_FAILED = 29
    ENGINE_OVERLOADED = 30
    ENGINE_TIMEOUT = 31
    UNAVAILABLE = 32
    INTERNAL = 33

    @property
    def statuses(self) -> Statuses:
        """The statuses that this reason is answered with."""
        return _STATUSES[self]


_STATUSES: dict[Reason, Statuses] = {
    Reason.MALFORMED_REQUEST: Statuses(HTTPStatus.BAD_REQUEST, code_pb2.INVALID_ARGUMENT),
    Reason.UNKNOWN_HINT: Statuses(HTTPStatus.BAD_REQUEST, code_pb2.INVALID_ARGUMENT),
    Reason.CONTEXT_TOO_LONG: Statuses(HTTPStatus.BAD_REQUEST, code_pb2.INVALID_ARGUMENT),
    Reason.UNSUPPORTED_FIELD: Statuses(HTTPStatus.BAD_REQUEST, code_pb2.INVALID_ARGUMENT),
    Reason.MISSING_KEY: Statuses(HTTPStatus.UNAUTHORIZED, code_pb2.UNAUTHENTICATED),
    Reason.INVALID_KEY: Statuses(HTTPStatus.UNAUTHORIZED, code_pb2.UNAUTHENTICATED),
    Reason.PERMISSION_DENIED: Statuses(HTTPStatus.FORBIDDEN, code_pb2.PERMISSION_DENIED),
    Reason.MODEL_NOT_FOUND: Statuses(HTTPStatus.NOT_FOUND, code_pb2.NOT_FOUND),
    Reason.PATH_NOT_FOUND: Statuses(HTTPStatus.NOT_FOUND, code_pb2.UNIMPLEMENTED),
    Reason.CAPABILITY_NOT_FOUND: Statuses(HTTPStatus.NOT_FOUND, code_pb2.NOT_FOUND),
    Reason.CHIP_NOT_FOUND: Statuses(HTTPStatus.NOT_FOUND, code_pb2.NOT_FOUND),
    Reason.QUALITY_NOT_FOUND: Statuses(HTTPStatus.NOT_FOUND, code_pb2.NOT_FOUND),
    Reason.RESOURCE_NOT_FOUND: Statuses(HTTPStatus.NOT_FOUND, code_pb2.NOT_FOUND),
    Reason.RESOURCE_EXISTS: Statuses(HTTPStatus.CONFLICT, code_pb2.ALREADY_EXISTS),
    Reason.ETAG_MISMATCH: Statuses(HTTPStatus.CONFLICT, code_pb2.ABORTED),
    Reason.METHOD_NOT_ALLOWED: Statuses(HTTPStatus.METHOD_NOT_ALLOWED, code_pb2.UNIMPLEMENTED),
    Reason.REQUEST_TOO_LARGE: Statuses(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, code_pb2.INVALID_ARGUMENT),
    Reason.BUDGET_EXHAUSTED: Statuses(HTTPStatus.PAYMENT_REQUIRED, code_pb2.RESOURCE_EXHAUSTED),
    Reason.PRICE_ABOVE_MAXIMUM: Statuses(HTTPStatus.PAYMENT_REQUIRED, code_pb2.FAILED_PRECONDITION),
    Reason.PRICE_UNKNOWN: Statuses(HTTPStatus.SERVICE_UNAVAILABLE, code_pb2.FAILED_PRECONDITION),
    Reason.RATE_LIMITED: Statuses(HTTPStatus.TOO_MANY_REQUESTS, code_pb2.RESOURCE_EXHAUSTED),
    Reason.RESIDENCY_UNSATISFIABLE: Statuses(HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS, code_pb2.FAILED_PRECONDITION),
    Reason.RESIDENCY_REFUSED_BY_NODE: Statuses(HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS, code_pb2.FAILED_PRECONDITION),
    Reason.NO_REPLICA_AVAILABLE: Statuses(HTTPStatus.SERVICE_UNAVAILABLE, code_pb2.UNAVAILABLE),
    Reason.CONTROL_UNAVAILABLE: Statuses(HTTPStatus.SERVICE_UNAVAILABLE, code_pb2.UNAVAILABLE),
    Reason.STALE_FENCE: Statuses(HTTPStatus.CONFLICT, code_pb2.FAILED_PRECONDITION),
    Reason.STALE_REVISION: Statuses(HTTPStatus.CONFLICT, code_pb2.FAILED_PRECONDITION),
    Reason.ENGINE_REFUSED: Statuses(HTTPStatus.BAD_REQUEST, code_pb2.INVALID_ARGUMENT),
    Reason.ENGINE_FAILED: Statuses(HTTPStatus.BAD_GATEWAY, code_pb2.UNAVAILABLE),
    Reason.ENGINE_OVERLOADED: Statuses(HTTPStatus.SERVICE_UNAVAILABLE, code_pb2.UNAVAILABLE),
    Reason.ENGINE_TIMEOUT: Statuses(HTTPStatus.GATEWAY_TIMEOUT, code_pb2.DEADLINE_EXCEEDED),
    Reason.UNAVAILABLE: Statuses(HTTPStatus.SERVICE_UNAVAILABLE, code_pb2.UNAVAILABLE),
    Reason.INTERNAL: Statuses(HTTPStatus.INTERNAL_SERVER_ERROR, code_pb2.INTERNAL),
}
