"""Where the emulators differ from the engines on purpose. docs/emulators.md says the same to users."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meant:
    """One difference.

    Args:
        reason: why it is left.
        paths: of `Difference`, with "*" for any text.
    """

    reason: str
    paths: tuple[str, ...]


MEANT: dict[str, tuple[Meant, ...]] = {
    "vllm": (
        Meant(
            "what its HTTP framework and its interpreter count is not the engine's",
            ("metrics/families/http_*", "metrics/families/process_*", "metrics/families/python_*"),
        ),
        Meant("when a counter was made is of no use to anybody here", ("metrics/families/*_created",)),
        Meant(
            "caches, preemption, admission control, images and cost estimates are not modeled",
            (
                "metrics/families/vllm:admission_rejections_total",
                "metrics/families/vllm:cache_config_info",
                "metrics/families/vllm:estimated_*",
                "metrics/families/vllm:external_prefix_cache_*",
                "metrics/families/vllm:mm_cache_*",
                "metrics/families/vllm:prompt_tokens_by_source_total",
                "metrics/families/vllm:prompt_tokens_cached*",
                "metrics/families/vllm:request_num_preemptions",
                "metrics/families/vllm:request_prefill_kv_computed_tokens",
            ),
        ),
        Meant(
            "of the shares of a request's time and size, those are shown that somebody reads",
            (
                "metrics/families/vllm:request_decode_time_seconds",
                "metrics/families/vllm:request_max_num_generation_tokens",
                "metrics/families/vllm:request_params_n",
                "metrics/families/vllm:request_prefill_time_seconds",
                "metrics/families/vllm:sleep_mode_*",
            ),
        ),
    ),
    "mlx": (),
}
