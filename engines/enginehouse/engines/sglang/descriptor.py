"""SGLang, as Enginehouse starts it."""

import sys

from enginehouse.engines.arguments import option, repeated
from enginehouse.engines.descriptor import (
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
from enginehouse.engines.metrics import MetricsMapping
from enginehouse.engines.options import EngineOption
from enginehouse.v1 import common_pb2

_TOOL_FLAG = "--tool-call-parser"
_REASONING_FLAG = "--reasoning-parser"
_VISION_FLAG = "--enable-multimodal"
# Without the second the higher value goes first, which elsewhere is the lower one.
_PRIORITY_FLAGS = frozenset({"--enable-priority-scheduling", "--schedule-low-priority-values-first"})


class SglangEngine(EngineDescriptor):
    """`python -m sglang.launch_server`. Flags and metrics of 0.5, by what is published of it; it never ran here.

    After SIGTERM it drains without a deadline, so SIGKILL follows after a grace of ours. Its token counters move only
    when a request ends; what moves in between is the gauge of tokens in its cache, and the histograms of latencies.
    """

    kind = "sglang"
    traits = EngineTraits(
        operations=(common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION),
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
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=4096, output_tokens_max=1024, parallel=16, threads=1),
        stream_usage_members='"stream_options":{"include_usage":true,"continuous_usage_stats":true}',
        metrics=MetricsMapping(
            running="sglang:num_running_reqs",
            waiting="sglang:num_queue_reqs",
            progress=(
                "sglang:num_used_tokens",
                "sglang:gen_throughput",
                "sglang:time_to_first_token_seconds_count",
                "sglang:inter_token_latency_seconds_count",
                "sglang:generation_tokens_total",
                "sglang:prompt_tokens_total",
            ),
            prompt_tokens_total="sglang:prompt_tokens_total",
            generated_tokens_total="sglang:generation_tokens_total",
            kv_cache_usage="sglang:token_usage",
            is_sparse=True,  # prometheus_client leaves out labelled metrics that were never set
        ),
        drain=DrainSignal(grace_s=20.0),
        start=StartTimeouts(starting_s=600.0, loading_s=600.0, attempt_s=60.0),
        quirks=Quirks(
            notes=(
                "It drains without a deadline after SIGTERM.",
                "/abort_request takes every request whose id begins with the one that is named: ids have one length.",
            ),
        ),
        options=frozenset(
            {
                EngineOption.PROGRAM,
                EngineOption.TENSOR_PARALLEL,
                EngineOption.PIPELINE_PARALLEL,
                EngineOption.MEMORY_FRACTION,
                EngineOption.QUANTIZATION,
                EngineOption.LORA_ADAPTERS,
                EngineOption.CONTAINER,
                EngineOption.MODEL_REVISION,
            }
        ),
        ports=1,  # between its own processes
        accelerator_share=0.9,
    )

    def model_source(self, spec: EngineSpec) -> str:
        """A folder of a Hugging Face model, or the id of one on the hub."""
        return self.located_source(spec)

    def features(self, spec: EngineSpec) -> tuple[common_pb2.Feature.ValueType, ...]:
        """The kind's, and tools and reasoning where the arguments bring a parser for them."""
        features = super().features(spec)
        flags = {argument.partition("=")[0] for argument in spec.settings.arguments}
        if _TOOL_FLAG in flags:
            features = (*features, common_pb2.FEATURE_TOOLS)
        if _REASONING_FLAG in flags:
            features = (*features, common_pb2.FEATURE_REASONING)
        if _VISION_FLAG in flags:
            features = (*features, common_pb2.FEATURE_VISION)
        if flags >= _PRIORITY_FLAGS:
            features = (*features, common_pb2.FEATURE_PRIORITY)
        return features

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """The module's command line. `program` is the interpreter that has SGLang."""
        settings, bounds = spec.settings, self.bounds(spec)
        (nccl_port,) = assignment.ports
        interpreter = settings.program or ("python3" if settings.container.image else sys.executable)
        adapters = [f"{adapter.name}={adapter.source}" for adapter in settings.lora_adapters]
        command = (
            *(interpreter, "-m", "sglang.launch_server", "--model-path", assignment.model),
            *("--served-model-name", spec.served_model),
            *("--host", assignment.host, "--port", str(assignment.port), "--nccl-port", str(nccl_port)),
            *("--context-length", str(bounds.context_tokens_max), "--max-running-requests", str(bounds.parallel)),
            *option("--tp-size", settings.tensor_parallel),
            *option("--pp-size", settings.pipeline_parallel),
            *option("--mem-fraction-static", settings.memory_fraction),
            *option("--quantization", settings.quantization),
            *(("--enable-lora", "--max-loras-per-batch", str(len(adapters))) if adapters else ()),
            *repeated("--lora-paths", adapters),
            "--enable-metrics",
            *settings.arguments,
        )
        return Launch(command, {"OMP_NUM_THREADS": str(bounds.threads)})
