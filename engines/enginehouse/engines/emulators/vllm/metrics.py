"""vLLM's metrics page (vllm/v1/metrics/loggers.py, 0.32)."""

from enginehouse.engines.emulators.core.emulation import Emulation
from enginehouse.engines.emulators.core.metrics import Family, Sample, counter, gauge, histogram
from enginehouse.engines.emulators.core.plan import FinishKind

_REASONS = {"stop": (FinishKind.EOS, FinishKind.STOP_SEQUENCE), "length": (FinishKind.LENGTH,)}


def families(emulation: Emulation) -> list[Family]:
    """What the emulated engine did, in vLLM's names."""
    engine, counts = emulation.engine, emulation.engine.counts
    labels = {"engine": "0", "model_name": emulation.model}
    capacity = engine.batch.places * emulation.context_tokens_max
    finished = [
        Sample(sum(counts.succeeded[kind.value] for kind in kinds), {**labels, "finished_reason": reason}, "_total")
        for reason, kinds in _REASONS.items()
    ]
    finished.append(Sample(counts.failed["abort"], {**labels, "finished_reason": "abort"}, "_total"))
    return [
        gauge(
            "vllm:num_requests_running", "Number of requests in model execution batches.", engine.batch.running, labels
        ),
        gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", engine.batch.waiting, labels),
        gauge(
            "vllm:kv_cache_usage_perc",
            "KV-cache usage. 1 means 100 percent usage.",
            min(1.0, engine.tokens_in_use / capacity),
            labels,
        ),
        counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", 0, labels),
        counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", counts.prompt_tokens, labels),
        counter(
            "vllm:generation_tokens_total", "Number of generation tokens processed.", counts.generated_tokens, labels
        ),
        Family("vllm:request_success", "counter", "Count of successfully processed requests.", finished),
        histogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.", counts.prompt_length, labels),
        histogram(
            "vllm:request_generation_tokens", "Number of generation tokens processed.", counts.output_length, labels
        ),
        histogram(
            "vllm:request_params_max_tokens",
            "Histogram of the max_tokens request parameter.",
            counts.output_limit,
            labels,
        ),
        histogram(
            "vllm:time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            counts.first_token_s,
            labels,
        ),
        histogram(
            "vllm:inter_token_latency_seconds",
            "Histogram of inter-token latency in seconds.",
            counts.next_token_s,
            labels,
        ),
        histogram(
            "vllm:e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            counts.request_s,
            labels,
        ),
        histogram(
            "vllm:request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            counts.queue_s,
            labels,
        ),
        histogram(
            "vllm:request_inference_time_seconds",
            "Histogram of time spent in RUNNING phase for request.",
            counts.inference_s,
            labels,
        ),
    ]
