"""Text Generation Inference, as Enginehouse starts it."""

from enginehouse.contract import RequestError
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
from enginehouse.engines.metrics import MetricsMapping
from enginehouse.engines.options import EngineOption
from enginehouse.v1 import admin_pb2, common_pb2

_TERMINATION_S = 20
_METRICS = MetricsMapping(
    running="tgi_batch_current_size",
    waiting="tgi_queue_size",
    progress=("tgi_batch_inference_count", "tgi_request_generated_tokens_sum"),
    prompt_tokens_total="tgi_request_input_length_sum",
    generated_tokens_total="tgi_request_generated_tokens_sum",
    is_sparse=True,  # its exporter leaves out what was never set
)
# By /generate_stream, which counts and names tokens better, and makes text alone.
_NATIVE = ApiTraits(
    operations=(common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION, common_pb2.OPERATION_COUNT_TOKENS),
    features=(
        common_pb2.FEATURE_STREAM,
        common_pb2.FEATURE_JSON_SCHEMA,
        common_pb2.FEATURE_LOGPROBS,
        common_pb2.FEATURE_SEED,
        common_pb2.FEATURE_PENALTIES,
        common_pb2.FEATURE_STOP_SEQUENCES,
        common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
    ),
    metrics=_METRICS,
)
# Requests beyond the running batch wait in the router's queue up to this many, then it answers 429.
_QUEUE_FACTOR = 8


class TgiEngine(EngineDescriptor):
    """`text-generation-launcher`. Flags and metrics of TGI 3.3, by what is published of it; it never ran here.

    It takes the member `model` of a chat for the name of a LoRA adapter, unless it is "tgi". Usage is known only at
    the end of a stream, so streams take the adapter lane. A batch is bounded by tokens and not by requests on most
    hardware; `--max-batch-size` holds where the launcher knows it.
    """

    kind = "tgi"
    traits = EngineTraits(
        operations=(common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION, common_pb2.OPERATION_COUNT_TOKENS),
        features=(
            common_pb2.FEATURE_STREAM,
            common_pb2.FEATURE_TOOLS,
            common_pb2.FEATURE_JSON_SCHEMA,
            common_pb2.FEATURE_LOGPROBS,
            common_pb2.FEATURE_SEED,
            common_pb2.FEATURE_PENALTIES,
            common_pb2.FEATURE_STOP_SEQUENCES,
        ),
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=4096, output_tokens_max=1024, parallel=16, threads=1),
        metrics=_METRICS,
        drain=DrainSignal(grace_s=_TERMINATION_S + 10.0),
        start=StartTimeouts(starting_s=600.0, loading_s=600.0, attempt_s=60.0),
        quirks=Quirks(
            output_limit_members=("max_tokens",),
            request_model="tgi",
            notes=(
                "The project has been in maintenance mode since December 2025.",
                "Overload and other errors may come as an event in a stream of status 200.",
                "There is no way to abort a request but to close its connection.",
            ),
        ),
        options=frozenset(
            {
                EngineOption.PROGRAM,
                EngineOption.TENSOR_PARALLEL,
                EngineOption.MEMORY_FRACTION,
                EngineOption.QUANTIZATION,
                EngineOption.LORA_ADAPTERS,
                EngineOption.CONTAINER,
                EngineOption.MODEL_REVISION,
            }
        ),
        ports=2,  # for Prometheus and for the shards; two launchers on one host would meet at the defaults
        accelerator_share=1.0,
        apis={admin_pb2.ENGINE_API_NATIVE: _NATIVE},
    )

    def model_source(self, spec: EngineSpec) -> str:
        """A folder of a Hugging Face model, or the id of one on the hub."""
        return self.located_source(spec)

    def check(self, spec: EngineSpec) -> None:
        """Refuses a context that has no room for a prompt.

        Raises:
            RequestError: the context is a single token.
        """
        super().check(spec)
        if self.bounds(spec).context_tokens_max < 2:
            raise RequestError(f"{spec.deployment}: context_tokens_max is 1; a prompt and an output need 2")

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """The launcher's command line, with long flags alone: the short ones changed between versions."""
        settings, bounds = spec.settings, self.bounds(spec)
        prometheus_port, master_port = assignment.ports
        adapters = ",".join(f"{adapter.name}={adapter.source}" for adapter in settings.lora_adapters)
        command = (
            *(settings.program or "text-generation-launcher", "--model-id", assignment.model),
            *("--hostname", assignment.host, "--port", str(assignment.port)),
            *("--prometheus-port", str(prometheus_port), "--master-port", str(master_port)),
            *("--shard-uds-path", str(assignment.folder / "tgi")),
            *("--max-total-tokens", str(bounds.context_tokens_max)),
            *("--max-input-tokens", str(bounds.context_tokens_max - 1)),
            *("--max-batch-size", str(bounds.parallel)),
            *("--max-concurrent-requests", str(bounds.parallel * _QUEUE_FACTOR)),
            *option("--num-shard", settings.tensor_parallel),
            *option("--cuda-memory-fraction", settings.memory_fraction),
            *option("--quantize", settings.quantization),
            *option("--lora-adapters", adapters),
            *("--graceful-termination-timeout", str(_TERMINATION_S), "--usage-stats", "off"),
            *settings.arguments,
        )
        return Launch(command, {"OMP_NUM_THREADS": str(bounds.threads)})
