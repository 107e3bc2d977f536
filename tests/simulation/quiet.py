"""Keeps product logs out of simulations: thousands of them run in one process."""

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog


def quiet() -> None:
    """Drops every log line of this process."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        processors=[_drop],
        cache_logger_on_first_use=False,
    )


def _drop(_logger: object, _method: str, _event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    raise structlog.DropEvent
