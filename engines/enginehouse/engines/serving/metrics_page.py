"""The Prometheus page of our own engine servers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """One sample without labels. `help_text` is one line."""

    name: str
    kind: Literal["gauge", "counter"]
    help_text: str
    value: float


def metrics_page(metrics: Iterable[Metric]) -> web.Response:
    """The page, in text format 0.0.4."""
    lines = [
        f"# HELP {metric.name} {metric.help_text}\n# TYPE {metric.name} {metric.kind}\n{metric.name} {metric.value!r}\n"
        for metric in metrics
    ]
    return web.Response(body="".join(lines).encode(), headers={"Content-Type": CONTENT_TYPE})
