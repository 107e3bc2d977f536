"""What the contract's messages mean in Python: errors, reasons and names. Written by hand, unlike `enginehouse.v1`."""

from enginehouse.contract.errors import (
    ERROR_DOMAIN,
    DependencyError,
    EngineError,
    EnginehouseError,
    InternalError,
    PolicyRefusal,
    RequestError,
    error_from_status,
)
from enginehouse.contract.reasons import Reason, Statuses

__all__ = [
    "ERROR_DOMAIN",
    "DependencyError",
    "EngineError",
    "EnginehouseError",
    "InternalError",
    "PolicyRefusal",
    "Reason",
    "RequestError",
    "Statuses",
    "error_from_status",
]
