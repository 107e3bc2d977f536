"""vLLM, as Enginehouse starts it."""

import json

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

_SHUTDOWN_S = 20
_TOOL_FLAGS = ("--tool-call-parser", "--tool-parser-plugin")
_REASONING_FLAG = "--reasoning-parser"


class VllmEngine(EngineDescriptor):
    """`vllm serve`. Flags and metrics are those of vLLM 0.32, which ran on CPUs.

    SIGTERM aborts at once unless `--shutdown-timeout` says otherwise; with it the engine drains, and answers what
    comes meanwhile with 500, so the node takes it out of rotation first. A stream that fails shows an error chunk
    before its `[DONE]`. Tools and reasoning are offered when their parsers are among the arguments, since nobody can
    tell from outside which of them a model needs.
    """

    kind = "vllm"
    traits = EngineTraits(
        operations=(common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION, common_pb2.OPERATION_COUNT_TOKENS),
        features=(
            common_pb2.FEATURE_STREAM,
            common_pb2.FEATURE_JSON_SCHEMA,
            common_pb2.FEATURE_LOGPROBS,
            common_pb2.FEATURE_SEED,
            common_pb2.FEATURE_MULTIPLE_CHOICES,
            common_pb2.FEATURE_PENALTIES,
            common_pb2.FEATURE_STOP_SEQUENCES,
        ),
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=4096, output_tokens_max=1024, parallel=16, threads=1),
        stream_usage_members='"stream_options":{"include_usage":true,"continuous_usage_stats":true}',
        metrics=MetricsMapping(
            running="vllm:num_requests_running",
            waiting="vllm:num_requests_waiting",
            # A step of the engine; the token counters stand still while a long prompt is read in pieces.
            progress=("vllm:iteration_tokens_total_count", "vllm:generation_tokens_total", "vllm:prompt_tokens_total"),
            prompt_tokens_total="vllm:prompt_tokens_total",
            generated_tokens_total="vllm:generation_tokens_total",
            kv_cache_usage="vllm:kv_cache_usage_perc",
        ),
        drain=DrainSignal(grace_s=_SHUTDOWN_S + 10.0),
        start=StartTimeouts(starting_s=600.0, loading_s=300.0, attempt_s=60.0),
        quirks=Quirks(
            notes=(
                "/health stays 200 while the engine hangs and while it drains; nothing here relies on it.",
                "Requests that come while it drains are answered with 500.",
                "On a CPU it is ready after 43 s on a quiet host, and after 200 s on a busy one.",
            ),
        ),
        options=frozenset(EngineOption) - {EngineOption.MODEL_SHA256},
        accelerator_share=0.9,  # the default of --gpu-memory-utilization
    )

    def model_source(self, spec: EngineSpec) -> str:
        """A folder of a Hugging Face model, or the id of one on the hub."""
        return self.located_source(spec)

    def features(self, spec: EngineSpec) -> tuple[common_pb2.Feature.ValueType, ...]:
        """The kind's, and tools and reasoning where the arguments bring a parser for them."""
        features = super().features(spec)
        flags = {argument.partition("=")[0] for argument in spec.settings.arguments}
        if flags & set(_TOOL_FLAGS):
            features = (*features, common_pb2.FEATURE_TOOLS)
        if _REASONING_FLAG in flags:
            features = (*features, common_pb2.FEATURE_REASONING)
        return features

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """The command line of `vllm serve`."""
        settings, bounds = spec.settings, self.bounds(spec)
        adapters = [f"{adapter.name}={adapter.source}" for adapter in settings.lora_adapters]
        generation = json.dumps({"max_new_tokens": bounds.output_tokens_max}, separators=(",", ":"))
        command = (
            *(settings.program or "vllm", "serve", assignment.model),
            *("--served-model-name", spec.served_model, *settings.served_names),
            *("--host", assignment.host, "--port", str(assignment.port)),
            *("--max-model-len", str(bounds.context_tokens_max), "--max-num-seqs", str(bounds.parallel)),
            *option("--tensor-parallel-size", settings.tensor_parallel),
            *option("--pipeline-parallel-size", settings.pipeline_parallel),
            *option("--gpu-memory-utilization", settings.memory_fraction),
            *option("--quantization", settings.quantization),
            *(("--enable-lora", *option("--max-loras", len(adapters))) if adapters else ()),
            *repeated("--lora-modules", adapters),
            *("--override-generation-config", generation),
            *("--enable-force-include-usage", "--no-enable-log-requests"),
            *("--shutdown-timeout", str(_SHUTDOWN_S)),
            *settings.arguments,
        )
        return Launch(
            command, {"OMP_NUM_THREADS": str(bounds.threads), "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        )
