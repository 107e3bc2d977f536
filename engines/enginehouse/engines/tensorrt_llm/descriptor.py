"""TensorRT-LLM, as Enginehouse starts it."""

from enginehouse.engines.arguments import option
from enginehouse.engines.descriptor import (
    ApiTraits,
    Assignment,
    Bounds,
    DrainSignal,
    EngineDescriptor,
    EngineSpec,
    EngineTraits,
    Launch,
    Quirks,
    StartTimeouts,
)
from enginehouse.engines.metrics import MetricsMapping, PageFormat
from enginehouse.engines.options import EngineOption
from enginehouse.v1 import admin_pb2, common_pb2

# A prompt is read in one piece unless chunked prefill is on, so a step has to hold the longest.
_STEP_TOKENS_MIN = 8192
# Without it /metrics is an empty list for ever (documentation of trtllm-serve, "Metrics Endpoint").
_CONFIG = "enable_iter_perf_stats: true\n"
# `--grpc`: token ids instead of text, and neither HTTP nor any account of its load.
_BY_GRPC = ApiTraits(
    operations=(common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION, common_pb2.OPERATION_COUNT_TOKENS),
    features=(
        common_pb2.FEATURE_STREAM,
        common_pb2.FEATURE_JSON_SCHEMA,
        common_pb2.FEATURE_LOGPROBS,
        common_pb2.FEATURE_SEED,
        common_pb2.FEATURE_MULTIPLE_CHOICES,
        common_pb2.FEATURE_PENALTIES,
        common_pb2.FEATURE_PRESENCE_PENALTY,
        common_pb2.FEATURE_STOP_SEQUENCES,
        common_pb2.FEATURE_TOKEN_IDS,
        common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
    ),
)


class TensorRtLlmEngine(EngineDescriptor):
    """`trtllm-serve` with its PyTorch backend. Flags and metrics by what is published of it; it never ran here.

    Its documents give different defaults, so every size is set. What a failed stream looks like is not documented, so
    streams take the adapter lane. Its metrics are emptied by whoever reads them: nobody else may.
    """

    kind = "tensorrt-llm"
    traits = EngineTraits(
        operations=(common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION),
        features=(
            common_pb2.FEATURE_STREAM,
            common_pb2.FEATURE_JSON_SCHEMA,
            common_pb2.FEATURE_LOGPROBS,
            common_pb2.FEATURE_SEED,
            common_pb2.FEATURE_PENALTIES,
            common_pb2.FEATURE_PRESENCE_PENALTY,
            common_pb2.FEATURE_STOP_SEQUENCES,
            common_pb2.FEATURE_TOKEN_IDS,
        ),
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=4096, output_tokens_max=1024, parallel=16, threads=1),
        metrics=MetricsMapping(
            running="numActiveRequests",
            waiting="numQueuedRequests",
            progress=("iter",),
            prompt_tokens_total="numCtxTokens",
            generated_tokens_total="numGenRequests",
            kv_cache_usage="kvCacheStats",
            format=PageFormat.ITERATIONS,
        ),
        drain=DrainSignal(grace_s=15.0),
        start=StartTimeouts(starting_s=900.0, loading_s=600.0, attempt_s=60.0),
        quirks=Quirks(
            failed_streams_show=False,
            notes=(
                "memory_fraction is a share of the memory left by the weights; its accelerators are all its own.",
                "It looks once a second whether a client has left.",
                "A model is quantized before it is served: the checkpoint says how.",
                "By gRPC it tells nothing of its load, so it is asked for a token at each look.",
            ),
        ),
        options=frozenset(
            {
                EngineOption.PROGRAM,
                EngineOption.TENSOR_PARALLEL,
                EngineOption.PIPELINE_PARALLEL,
                EngineOption.MEMORY_FRACTION,
                EngineOption.CONTAINER,
                EngineOption.MODEL_REVISION,
            }
        ),
        accelerator_share=1.0,
        apis={admin_pb2.ENGINE_API_GRPC: _BY_GRPC},
    )

    def model_source(self, spec: EngineSpec) -> str:
        """A folder of a Hugging Face model, or the id of one on the hub."""
        return self.located_source(spec)

    def accelerator_share(self, spec: EngineSpec) -> float:
        """All of them: its `memory_fraction` is a share of what is left after the weights."""
        return self.traits.accelerator_share

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """The command line of `trtllm-serve`, and its configuration file."""
        settings, bounds = spec.settings, self.bounds(spec)
        config = assignment.folder / "tensorrt-llm.yaml"
        command = (
            *(settings.program or "trtllm-serve", assignment.model),
            *("--host", assignment.host, "--port", str(assignment.port), "--backend", "pytorch"),
            *("--max_batch_size", str(bounds.parallel), "--max_seq_len", str(bounds.context_tokens_max)),
            *("--max_num_tokens", str(max(_STEP_TOKENS_MIN, bounds.context_tokens_max))),
            *("--tp_size", str(settings.tensor_parallel or 1), "--pp_size", str(settings.pipeline_parallel or 1)),
            *option("--kv_cache_free_gpu_memory_fraction", settings.memory_fraction),
            *("--config", str(config)),
            *(("--grpc",) if settings.api == admin_pb2.ENGINE_API_GRPC else ()),
            *settings.arguments,
        )
        return Launch(
            command, {"OMP_NUM_THREADS": str(bounds.threads), "TRTLLM_NO_USAGE_STATS": "1"}, {config: _CONFIG}
        )
