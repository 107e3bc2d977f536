"""What operators see of a process: logs, traces and metrics."""

from enginehouse.services.telemetry.logs import configure_logs
from enginehouse.services.telemetry.traces import (
    Measures,
    Providers,
    carried,
    operation_span,
    parent_of,
    start_telemetry,
)

__all__ = ["Measures", "Providers", "carried", "configure_logs", "operation_span", "parent_of", "start_telemetry"]
