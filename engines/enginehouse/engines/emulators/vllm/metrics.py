"""vLLM's metrics page (vllm/v1/metrics/loggers.py, 0.32)."""

from typing import TYPE_CHECKING

from enginehouse.engines.emulators.core.counts import Counts
from enginehouse.engines.emulators.core.metrics import Family, Labels, Sample, counter, gauge, histogram
from enginehouse.engines.emulators.core.plan import FinishKind

if TYPE_CHECKING:
    from enginehouse.engines.emulators.vllm.emulation import VllmEmulation

_REASONS = {"stop": (FinishKind.EOS, FinishKind.STOP_SEQUENCE), "length": (FinishKind.LENGTH,)}


def families(emulation: "VllmEmulation") -> list[Family]:
    """What the emulated engine did, in vLLM's names."""
    labels = {"engine": "0", "model_name": emulation.model}
    counts = emulation.engine.counts
    return [
        *_gauges(emulation, labels),
        emulation.sleep.family(labels),
        *_counters(counts, labels),
        *_histograms(counts, labels),
    ]


def _gauges(emulation: "VllmEmulation", labels: Labels) -> list[Family]:
    engine = emulation.engine
    running, waiting = engine.batch.running, engine.batch.waiting
    capacity = engine.batch.places * emulation.context_tokens_max
    reasons = [Sample(waiting, {**labels, "reason": "capacity"}), Sample(0, {**labels, "reason": "deferred"})]
    usage = min(1.0, engine.tokens_in_use / capacity)
    return [
        gauge("vllm:num_requests_running", "Number of requests in model execution batches.", running, labels),
        gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", waiting, labels),
        Family("vllm:num_requests_waiting_by_reason", "gauge", "Number of requests waiting, by reason.", reasons),
        gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", usage, labels),
    ]


def _counters(counts: Counts, labels: Labels) -> list[Family]:
    finished = [
        Sample(sum(counts.succeeded[kind.value] for kind in kinds), {**labels, "finished_reason": reason})
        for reason, kinds in _REASONS.items()
    ]
    finished.append(Sample(counts.failed["abort"], {**labels, "finished_reason": "abort"}))
    read, generated = counts.prompt_tokens, counts.generated_tokens
    return [
        counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", 0, labels),
        counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", read, labels),
        counter("vllm:generation_tokens_total", "Number of generation tokens processed.", generated, labels),
        counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in tokens.", read, labels),
        counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in tokens.", 0, labels),
        Family("vllm:request_success_total", "counter", "Count of successfully processed requests.", finished),
    ]


def _histograms(counts: Counts, labels: Labels) -> list[Family]:
    shown = {
        "iteration_tokens_total": ("number of tokens per engine step", counts.step_tokens),
        "request_prompt_tokens": ("number of prefill tokens processed", counts.prompt_length),
        "request_generation_tokens": ("number of generation tokens processed", counts.output_length),
        "request_params_max_tokens": ("the max_tokens request parameter", counts.output_limit),
        "time_to_first_token_seconds": ("time to first token in seconds", counts.first_token_s),
        "inter_token_latency_seconds": ("inter-token latency in seconds", counts.next_token_s),
        "request_time_per_output_token_seconds": ("time per output token of a request", counts.token_mean_s),
        "e2e_request_latency_seconds": ("e2e request latency in seconds", counts.request_s),
        "request_queue_time_seconds": ("time spent in WAITING phase for request", counts.queue_s),
        "request_inference_time_seconds": ("time spent in RUNNING phase for request", counts.inference_s),
    }
    return [histogram(f"vllm:{name}", f"Histogram of {what}.", seen, labels) for name, (what, seen) in shown.items()]
