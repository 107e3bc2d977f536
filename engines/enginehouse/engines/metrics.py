"""What an engine says that it is doing: its page of metrics, read as `v1.ReplicaLoad`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, unique

from enginehouse.contract import EngineError, Reason
from enginehouse.engines.grpc_loads import LoadsPage
from enginehouse.engines.iterations import IterationPage
from enginehouse.v1 import node_pb2

# One sample of the Prometheus text format 0.0.4: name, labels, value, and a timestamp that engines leave out.
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?\s+(\S+)(?:\s+-?\d+)?\s*")


@unique
class PageFormat(Enum):
    """How an engine writes its page."""

    PROMETHEUS = "prometheus"
    # TensorRT-LLM: a list of what each iteration did since the last look; see `iterations`.
    ITERATIONS = "iterations"
    # vLLM by gRPC: no page, but an answer of its service; see `grpc_loads`.
    GRPC_LOADS = "grpc-loads"


@dataclass(frozen=True, slots=True)
class MetricsMapping:
    """Names of an engine's metrics. One that comes with several labels is summed over them.

    Args:
        running: gauge of requests that generate.
        waiting: gauge of requests that wait for a slot.
        progress: counters of which one grows whenever the engine works on anything.
        prompt_tokens_total: counter of prompt tokens computed.
        generated_tokens_total: counter of tokens generated.
        prompt_seconds_total: counter of seconds spent on prompts. Empty: rates are over wall-clock time.
        generated_seconds_total: counter of seconds spent generating. Empty: rates are over wall-clock time.
        kv_cache_usage: gauge from 0 to 1. Empty: the engine does not say.
        path: of the page, or of the method that answers with it.
        format: of the page.
        is_sparse: what was never set is missing from the page, so a gauge that is not there is 0.
    """

    running: str
    waiting: str
    progress: tuple[str, ...]
    prompt_tokens_total: str
    generated_tokens_total: str
    prompt_seconds_total: str = ""
    generated_seconds_total: str = ""
    kv_cache_usage: str = ""
    path: str = "/metrics"
    format: PageFormat = PageFormat.PROMETHEUS
    is_sparse: bool = False


@dataclass(frozen=True, slots=True)
class LoadSample:
    """One reading. `progress` differs from an earlier reading's if the engine worked on anything in between."""

    load: node_pb2.ReplicaLoad
    progress: float

    @property
    def is_busy(self) -> bool:
        """Requests run or wait."""
        return self.requests > 0

    @property
    def requests(self) -> int:
        """Requests that run or wait."""
        return self.load.running_requests + self.load.waiting_requests


def parse_prometheus(text: str) -> dict[str, float]:
    """The samples of a Prometheus text page by name, summed over labels. Lines that are none are passed over."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("#") or not (match := _SAMPLE.fullmatch(line)):
            continue
        try:
            value = float(match[2])
        except ValueError:
            continue
        if math.isfinite(value):
            values[match[1]] = values.get(match[1], 0.0) + value
    return values


class LoadMeter:
    """Turns the pages of one running engine, read one after another, into loads with rates."""

    def __init__(self, mapping: MetricsMapping) -> None:
        self._mapping = mapping
        self._previous: Mapping[str, float] = {}
        self._previous_s: float | None = None
        self._prefill_rate = 0.0
        self._decode_rate = 0.0
        self._iterations = IterationPage()
        self._grpc_loads = LoadsPage()

    def read(self, page: str, *, monotonic_s: float, now: datetime) -> LoadSample:
        """The load that `page` tells of.

        Args:
            page: the text.
            monotonic_s: when it was read, for rates.
            now: when it was read, for `observed_at`.

        Raises:
            EngineError: the page holds no gauge of running requests, so it is not this kind of engine's.
        """
        mapping = self._mapping
        values = self._values(page, monotonic_s)
        if mapping.running not in values and not mapping.is_sparse:
            raise EngineError(
                f"the metrics page {mapping.path} has no {mapping.running}; is it an engine of another kind?",
                Reason.ENGINE_FAILED,
            )
        elapsed_s = 0.0 if self._previous_s is None else monotonic_s - self._previous_s
        self._prefill_rate = self._rate(
            values, mapping.prompt_tokens_total, mapping.prompt_seconds_total, elapsed_s, self._prefill_rate
        )
        self._decode_rate = self._rate(
            values, mapping.generated_tokens_total, mapping.generated_seconds_total, elapsed_s, self._decode_rate
        )
        self._previous, self._previous_s = values, monotonic_s
        load = node_pb2.ReplicaLoad(
            running_requests=int(values.get(mapping.running, 0)),
            waiting_requests=int(values.get(mapping.waiting, 0)),
            prefill_tokens_per_second=self._prefill_rate,
            decode_tokens_per_second=self._decode_rate,
        )
        load.observed_at.FromDatetime(now)
        if mapping.kv_cache_usage in values:
            load.kv_cache_usage = min(1.0, values[mapping.kv_cache_usage])  # a sum, where there are several caches
        return LoadSample(load, sum(values.get(name, 0.0) for name in mapping.progress))

    def _values(self, page: str, monotonic_s: float) -> Mapping[str, float]:
        if self._mapping.format is PageFormat.ITERATIONS:
            return self._iterations.read(page, monotonic_s)
        if self._mapping.format is PageFormat.GRPC_LOADS:
            return self._grpc_loads.read(page, monotonic_s)
        return parse_prometheus(page)

    def _rate(self, values: Mapping[str, float], tokens: str, seconds: str, elapsed_s: float, last: float) -> float:
        """Tokens per second since the previous page; the last known rate while nothing was done."""
        done = values.get(tokens, 0.0) - self._previous.get(tokens, 0.0)
        spent_s = values.get(seconds, 0.0) - self._previous.get(seconds, 0.0) if seconds else elapsed_s
        return done / spent_s if done > 0 and spent_s > 0 else last
