"""SGLang's metrics page (sglang/srt/observability/metrics_collector.py, 0.5.23), as with `--enable-metrics`."""

from enginehouse.engines.emulators.core.emulation import Emulation
from enginehouse.engines.emulators.core.metrics import Family, counter, gauge, histogram


def families(emulation: Emulation) -> list[Family]:
    """What the emulated engine did, in SGLang's names."""
    engine, counts = emulation.engine, emulation.engine.counts
    of_request = {"model_name": emulation.model}
    labels = {**of_request, "engine_type": "unified", "tp_rank": "0", "pp_rank": "0"}
    capacity = engine.batch.places * emulation.context_tokens_max
    gauges = (
        ("num_running_reqs", "The number of running requests.", engine.batch.running),
        ("num_used_tokens", "The number of used tokens.", engine.tokens_in_use),
        ("token_usage", "The token usage.", min(1.0, engine.tokens_in_use / capacity)),
        ("num_queue_reqs", "The number of requests in the waiting queue.", engine.batch.waiting),
        ("cache_hit_rate", "The prefix cache hit rate.", 0.0),
    )
    histograms = (
        ("time_to_first_token_seconds", "Histogram of time to first token in seconds.", counts.first_token_s),
        ("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", counts.next_token_s),
        ("e2e_request_latency_seconds", "Histogram of End-to-end request latency in seconds", counts.request_s),
    )
    return [
        *(gauge(f"sglang:{name}", text, value, labels) for name, text, value in gauges),
        counter("sglang:prompt_tokens_total", "Number of prefill tokens processed.", counts.prompt_tokens, of_request),
        counter(
            "sglang:generation_tokens_total",
            "Number of generation tokens processed.",
            counts.generated_tokens,
            of_request,
        ),
        counter("sglang:num_requests_total", "Number of requests processed.", counts.queue_s.count, of_request),
        counter("sglang:num_aborted_requests_total", "Number of requests aborted.", counts.failed["abort"], of_request),
        *(histogram(f"sglang:{name}", text, values, of_request) for name, text, values in histograms),
        histogram("sglang:queue_time_seconds", "Histogram of queueing time in seconds.", counts.queue_s, labels),
    ]
