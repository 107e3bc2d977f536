"""TensorRT-LLM's statistics: iterations as JSON, drained when they are read, and Prometheus under another path."""

from collections import deque
from datetime import UTC, datetime

from enginehouse.engines.emulators.core.answers import Json
from enginehouse.engines.emulators.core.emulation import Emulation
from enginehouse.engines.emulators.core.metrics import Family, Sample, histogram

_KEPT_MAX = 1000  # iter_stats_max_iterations
_BLOCK_TOKENS = 32


class Iterations:
    """What GET /metrics reads. Iterations since the last read share the figures of the present moment."""

    def __init__(self, emulation: Emulation) -> None:
        self._emulation = emulation
        self._read = 0
        self._read_prompt_tokens = 0

    def drain(self) -> list[Json]:
        """The iterations since the last call, at most so many; none if there were none."""
        done = self._emulation.engine.counts.decode_steps
        numbers = deque(range(self._read, done), maxlen=_KEPT_MAX)
        self._read = done
        prompt_tokens = self._emulation.engine.counts.prompt_tokens
        read, self._read_prompt_tokens = (
            self._read_prompt_tokens,
            prompt_tokens if numbers else self._read_prompt_tokens,
        )
        return [
            self._stats(number, prompt_tokens - read if position == 0 else 0) for position, number in enumerate(numbers)
        ]

    def _stats(self, number: int, prompt_tokens: int) -> Json:
        """`prompt_tokens`: read in this iteration; the first of a page has those of all."""
        engine = self._emulation.engine
        running, waiting = engine.batch.running, engine.batch.waiting
        blocks = engine.batch.places * self._emulation.context_tokens_max // _BLOCK_TOKENS
        used = min(blocks, -(-engine.tokens_in_use // _BLOCK_TOKENS))
        return {
            "timestamp": datetime.now(UTC).strftime("%m-%d-%Y %H:%M:%S.%f"),
            "iter": number,
            "iterLatencyMS": engine.batch.step_s() * 1000,
            "numActiveRequests": running,
            "numQueuedRequests": waiting,
            "maxNumActiveRequests": engine.batch.places,
            "cpuMemUsage": 0,
            "gpuMemUsage": 0,
            "pinnedMemUsage": 0,
            "kvCacheStats": {
                "maxNumBlocks": blocks,
                "freeNumBlocks": blocks - used,
                "usedNumBlocks": used,
                "tokensPerBlock": _BLOCK_TOKENS,
                "allocTotalBlocks": 0,
                "allocNewBlocks": 0,
                "reusedBlocks": 0,
                "missedBlocks": 0,
                "cacheHitRate": 0.0,
            },
            "inflightBatchingStats": {
                "numScheduledRequests": running,
                "numContextRequests": 0,
                "numGenRequests": running,
                "numPausedRequests": 0,
                "numCtxTokens": prompt_tokens,
                "microBatchId": 0,
                "avgNumDecodedTokensPerIter": 1.0 if running else 0.0,
            },
        }


def families(emulation: Emulation) -> list[Family]:
    """GET /prometheus/metrics, as with `return_perf_metrics`."""
    counts = emulation.engine.counts
    labels = {"model_name": emulation.model, "engine_type": "pytorch"}
    finished = [
        Sample(number, {**labels, "finished_reason": "length" if kind == "length" else "stop"}, "_total")
        for kind, number in sorted(counts.succeeded.items())
    ]
    histograms = (
        ("time_to_first_token_seconds", "Histogram of time to first token in seconds.", counts.first_token_s),
        ("time_per_output_token_seconds", "Histogram of time per output token in seconds.", counts.token_mean_s),
        ("e2e_request_latency_seconds", "Histogram of end to end request latency in seconds.", counts.request_s),
        ("request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", counts.queue_s),
    )
    return [
        Family("trtllm_request_success", "counter", "Count of successfully processed requests.", finished),
        *(histogram(f"trtllm_{name}", text, values, labels) for name, text, values in histograms),
    ]
