"""TensorRT-LLM's page of metrics: what each iteration did since somebody last looked, and then forgotten.

Source: `IterationStats` of TensorRT-LLM's executor, and the documentation of trtllm-serve, "Metrics Endpoint".
"""

import json
from collections.abc import Mapping
from typing import Any

# For so long after the last iteration its requests count as still there: between two iterations there are none to see.
_KEEPS_S = 5.0
_BATCH = "inflightBatchingStats"
_CACHE = "kvCacheStats"


class IterationPage:
    """Adds up the pages of one engine, which only one reader may read."""

    def __init__(self) -> None:
        self._totals = {"iter": 0.0, "numCtxTokens": 0.0, "numGenRequests": 0.0}
        self._gauges: dict[str, float] = {"numActiveRequests": 0.0, "numQueuedRequests": 0.0}
        self._last_s: float | None = None

    def read(self, page: str, monotonic_s: float) -> Mapping[str, float]:
        """Counters since the first page, and the gauges of the newest iteration; 0 once that is too long ago.

        Args:
            page: the JSON text. One that is no list of iterations gives nothing.
            monotonic_s: when it was read.
        """
        try:
            answer = json.loads(page)
        except ValueError:
            return {}
        if not isinstance(answer, list):
            return {}
        iterations = [one for one in answer if isinstance(one, dict)]
        for iteration in iterations:
            batch = _mapping(iteration, _BATCH)
            self._totals["iter"] += 1
            self._totals["numCtxTokens"] += _number(batch, "numCtxTokens")
            self._totals["numGenRequests"] += _number(batch, "numGenRequests")  # at least a token each
        if iterations:
            self._last_s = monotonic_s
            self._gauges = _gauges(iterations[-1])
        elif self._last_s is not None and monotonic_s - self._last_s > _KEEPS_S:
            self._gauges |= {"numActiveRequests": 0.0, "numQueuedRequests": 0.0}
        return {**self._totals, **self._gauges}


def _gauges(iteration: Mapping[str, Any]) -> dict[str, float]:
    gauges = {name: _number(iteration, name) for name in ("numActiveRequests", "numQueuedRequests")}
    cache = _mapping(iteration, _CACHE)
    if blocks := _number(cache, "maxNumBlocks"):
        gauges[_CACHE] = _number(cache, "usedNumBlocks") / blocks
    return gauges


def _mapping(iteration: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = iteration.get(name)
    return value if isinstance(value, dict) else {}


def _number(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name, 0)
    return float(value) if isinstance(value, int | float) else 0.0
