"""What an emulated engine counts, under no engine's names. Each engine's metrics page is a view of it."""

from collections import Counter
from dataclasses import dataclass, field

from enginehouse.engines.emulators.core.metrics import Histogram

# vLLM's bounds, which are the finest of the six engines'.
TTFT_BOUNDS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0)
TOKEN_BOUNDS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0)
REQUEST_BOUNDS_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0)
LENGTH_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


@dataclass(slots=True)
class Counts:
    """Totals since the start. Times are in seconds. `finished_...` is of requests that are answered."""

    requests: int = 0
    succeeded: Counter[str] = field(default_factory=Counter)  # by the kind of finish
    failed: Counter[str] = field(default_factory=Counter)  # by what went wrong
    prompt_tokens: int = 0
    generated_tokens: int = 0
    finished_prompt_tokens: int = 0
    finished_generated_tokens: int = 0
    decode_steps: int = 0
    prompt_seconds: float = 0.0
    generated_seconds: float = 0.0
    first_token_s: Histogram = field(default_factory=lambda: Histogram(TTFT_BOUNDS_S))
    next_token_s: Histogram = field(default_factory=lambda: Histogram(TOKEN_BOUNDS_S))
    request_s: Histogram = field(default_factory=lambda: Histogram(REQUEST_BOUNDS_S))
    queue_s: Histogram = field(default_factory=lambda: Histogram(REQUEST_BOUNDS_S))
    inference_s: Histogram = field(default_factory=lambda: Histogram(REQUEST_BOUNDS_S))
    token_mean_s: Histogram = field(default_factory=lambda: Histogram(TOKEN_BOUNDS_S))
    prompt_length: Histogram = field(default_factory=lambda: Histogram(LENGTH_BOUNDS))
    output_length: Histogram = field(default_factory=lambda: Histogram(LENGTH_BOUNDS))
    output_limit: Histogram = field(default_factory=lambda: Histogram(LENGTH_BOUNDS))
    step_tokens: Histogram = field(default_factory=lambda: Histogram(LENGTH_BOUNDS))
