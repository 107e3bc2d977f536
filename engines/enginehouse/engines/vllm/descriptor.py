"""vLLM, as Enginehouse starts it."""

import json
from itertools import pairwise

from enginehouse.contract import Reason, RequestError
from enginehouse.engines.arguments import option, repeated
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
from enginehouse.engines.grpc_loads import GENERATED_TOKENS, GET_LOADS, KV_CACHE_USAGE, RUNNING, USED_TOKENS, WAITING
from enginehouse.engines.metrics import MetricsMapping, PageFormat
from enginehouse.engines.options import EngineOption
from enginehouse.engines.sleep import ControlCall, SleepLevel, SleepMode
from enginehouse.v1 import admin_pb2, common_pb2

_SHUTDOWN_S = 20
_TOOL_FLAGS = ("--tool-call-parser", "--tool-parser-plugin")
_REASONING_FLAG = "--reasoning-parser"
_VISION_FLAG = "--limit-mm-per-prompt"
_SLEEP_FLAG = "--enable-sleep-mode"
# Offers /sleep, and with it calls of any method of the engine: on loopback, for us alone.
_DEVELOPMENT_MODE = "VLLM_SERVER_DEV_MODE"
_SLEEP = SleepMode(
    {
        1: SleepLevel(
            "the memory of its accelerators; the weights stay in the host's",
            sleep=(ControlCall("/sleep?level=1"),),
            wake=(ControlCall("/wake_up"),),
        ),
        2: SleepLevel(
            "the memory of its accelerators, and the weights, which are read again",
            sleep=(ControlCall("/sleep?level=2"),),
            # What it wakes up with is memory that nobody has filled.
            wake=(
                ControlCall("/wake_up?tags=weights"),
                ControlCall("/collective_rpc", '{"method":"reload_weights"}'),
                ControlCall("/wake_up?tags=kv_cache"),
            ),
        ),
    }
)
_RUNNER_FLAG, _POOLING = "--runner", "pooling"
_POOLING_OPERATIONS = (common_pb2.OPERATION_EMBEDDING, common_pb2.OPERATION_RERANK)
_POOLING_BY_GRPC = (common_pb2.OPERATION_EMBEDDING, common_pb2.OPERATION_COUNT_TOKENS)
_PRIORITY_ARGUMENTS = ("--scheduling-policy priority", "--scheduling-policy=priority")
# `--grpc`: token ids instead of text, one model without a name, and no HTTP, so no page of metrics either.
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
    metrics=MetricsMapping(
        running=RUNNING,
        waiting=WAITING,
        progress=(GENERATED_TOKENS, USED_TOKENS, KV_CACHE_USAGE),
        prompt_tokens_total="",
        generated_tokens_total=GENERATED_TOKENS,
        kv_cache_usage=KV_CACHE_USAGE,
        path=GET_LOADS,
        format=PageFormat.GRPC_LOADS,
    ),
    without=frozenset({EngineOption.LORA_ADAPTERS, EngineOption.SERVED_NAMES}),
)


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
            common_pb2.FEATURE_PRESENCE_PENALTY,
            common_pb2.FEATURE_STOP_SEQUENCES,
            common_pb2.FEATURE_TOKEN_IDS,
            common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
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
        apis={admin_pb2.ENGINE_API_GRPC: _BY_GRPC},
    )

    def model_source(self, spec: EngineSpec) -> str:
        """A folder of a Hugging Face model, or the id of one on the hub."""
        return self.located_source(spec)

    def operations(self, spec: EngineSpec) -> tuple[common_pb2.Operation.ValueType, ...]:
        """Those of a model that embeds, where the arguments say that it does."""
        if not _pools(spec):
            return super().operations(spec)
        return _POOLING_OPERATIONS if self.asked_by(spec) is self.traits else _POOLING_BY_GRPC

    def sleep_mode(self, spec: EngineSpec) -> SleepMode:
        """Levels 1 and 2, where `--enable-sleep-mode` is among the arguments.

        vLLM refuses that argument on a CPU, where its development mode alone lets requests wait and frees nothing.

        Raises:
            RequestError: it is not.
        """
        settings = spec.settings
        if settings.external_url or self.asked_by(spec) is not self.traits:
            raise RequestError(
                f"{spec.deployment}: an engine {self.kind} that is only attached, or asked by gRPC, cannot be put to "
                "sleep",
                Reason.METHOD_NOT_ALLOWED,
            )
        if _SLEEP_FLAG not in settings.arguments and settings.environment.get(_DEVELOPMENT_MODE) != "1":
            raise RequestError(
                f"{spec.deployment}: engine {self.kind} can sleep only with {_SLEEP_FLAG} among its arguments",
                Reason.METHOD_NOT_ALLOWED,
            )
        return _SLEEP

    def features(self, spec: EngineSpec) -> tuple[common_pb2.Feature.ValueType, ...]:
        """The kind's, and tools and reasoning where the arguments bring a parser for them, and priorities where asked.

        By gRPC they bring none: the service answers in tokens, and the parsers belong to the HTTP server.
        """
        if _pools(spec):
            return ()
        features = super().features(spec)
        if self.asked_by(spec) is not self.traits:
            return features
        flags = {argument.partition("=")[0] for argument in spec.settings.arguments}
        if flags & set(_TOOL_FLAGS):
            features = (*features, common_pb2.FEATURE_TOOLS)
        if _REASONING_FLAG in flags:
            features = (*features, common_pb2.FEATURE_REASONING)
        if _VISION_FLAG in flags:
            features = (*features, common_pb2.FEATURE_VISION)
        if any(words in " ".join(spec.settings.arguments) for words in _PRIORITY_ARGUMENTS):
            features = (*features, common_pb2.FEATURE_PRIORITY)
        return features

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """The command line of `vllm serve`."""
        settings, bounds = spec.settings, self.bounds(spec)
        is_grpc = settings.api == admin_pb2.ENGINE_API_GRPC
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
            *(() if _pools(spec) else ("--override-generation-config", generation)),
            "--no-enable-log-requests",
            # The gRPC server ends 5 s after the signal, whatever it is told.
            *(("--grpc",) if is_grpc else ("--enable-force-include-usage", "--shutdown-timeout", str(_SHUTDOWN_S))),
            *settings.arguments,
        )
        environment = {"OMP_NUM_THREADS": str(bounds.threads), "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if _SLEEP_FLAG in settings.arguments:
            environment[_DEVELOPMENT_MODE] = "1"
        return Launch(command, environment)


def _pools(spec: EngineSpec) -> bool:
    """Its model embeds and ranks, and does not generate: `--runner pooling`."""
    words = [word for argument in spec.settings.arguments for word in argument.split("=")]
    return any(pair == (_RUNNER_FLAG, _POOLING) for pair in pairwise(words))
