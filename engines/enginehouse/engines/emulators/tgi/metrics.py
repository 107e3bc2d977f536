"""TGI's metrics page (docs/source/reference/metrics.md, 3.3)."""

from enginehouse.engines.emulators.core.emulation import Emulation
from enginehouse.engines.emulators.core.metrics import Family, Sample, counter, gauge, histogram


def families(emulation: Emulation) -> list[Family]:
    """What the emulated engine did, in TGI's names."""
    engine, counts = emulation.engine, emulation.engine.counts
    failures = [Sample(number, {"err": what}) for what, number in sorted(counts.failed.items())]
    steps = [Sample(counts.decode_steps, {"method": "decode"}), Sample(counts.queue_s.count, {"method": "prefill"})]
    return [
        counter("tgi_request_count", "Total number of requests", counts.requests),
        counter("tgi_request_success", "Number of successful requests", sum(counts.succeeded.values())),
        Family("tgi_request_failure", "counter", "Number of failed requests", failures),
        Family("tgi_batch_inference_count", "counter", "Inference calls per method (prefill or decode)", steps),
        Family("tgi_batch_inference_success", "counter", "Number of successful inference calls per method", steps),
        gauge("tgi_queue_size", "Current queue size", engine.batch.waiting),
        gauge("tgi_batch_current_size", "Current batch size", engine.batch.running),
        gauge("tgi_batch_current_max_tokens", "Maximum tokens for the current batch", engine.tokens_in_use),
        gauge(
            "tgi_batch_total_tokens",
            "Maximum amount of tokens in total.",
            engine.batch.places * emulation.context_tokens_max,
        ),
        histogram("tgi_request_duration", "Total time spent processing the request", counts.request_s),
        histogram("tgi_request_queue_duration", "Time spent in the queue per request", counts.queue_s),
        histogram("tgi_request_inference_duration", "Request inference duration", counts.inference_s),
        histogram("tgi_request_mean_time_per_token_duration", "Mean time per token per request", counts.token_mean_s),
        histogram("tgi_request_input_length", "Input token length per request", counts.prompt_length),
        histogram("tgi_request_generated_tokens", "Generated tokens per request", counts.output_length),
        histogram("tgi_request_max_new_tokens", "Maximum new tokens per request", counts.output_limit),
    ]
