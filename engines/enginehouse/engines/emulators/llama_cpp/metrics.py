"""llama.cpp's metrics page (tools/server/server-context.cpp), as with `--metrics`."""

from enginehouse.engines.emulators.core.emulation import Emulation
from enginehouse.engines.emulators.core.metrics import Family, counter, gauge


def families(emulation: Emulation) -> list[Family]:
    """What the emulated engine did, in llama.cpp's names. The token counters move when a request ends."""
    engine, counts = emulation.engine, emulation.engine.counts
    prompt_rate = counts.finished_prompt_tokens / counts.prompt_seconds if counts.prompt_seconds else 0.0
    output_rate = counts.finished_generated_tokens / counts.generated_seconds if counts.generated_seconds else 0.0
    counters = (
        ("prompt_tokens_total", "Number of prompt tokens processed.", counts.finished_prompt_tokens),
        ("prompt_seconds_total", "Prompt process time", counts.prompt_seconds),
        ("tokens_predicted_total", "Number of generation tokens processed.", counts.finished_generated_tokens),
        ("tokens_predicted_seconds_total", "Predict process time", counts.generated_seconds),
        ("n_decode_total", "Total number of llama_decode() calls", counts.decode_steps),
    )
    gauges = (
        ("prompt_tokens_seconds", "Average prompt throughput in tokens/s.", prompt_rate),
        ("predicted_tokens_seconds", "Average generation throughput in tokens/s.", output_rate),
        ("requests_processing", "Number of requests processing.", engine.batch.running),
        ("requests_deferred", "Number of requests deferred.", engine.batch.waiting),
    )
    return [
        *(counter(f"llamacpp:{name}", text, value) for name, text, value in counters),
        *(gauge(f"llamacpp:{name}", text, value) for name, text, value in gauges),
    ]
