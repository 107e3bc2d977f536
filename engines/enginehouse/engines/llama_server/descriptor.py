"""llama.cpp's own server program, as Enginehouse starts it."""

from dataclasses import replace

from enginehouse.contract import RequestError
from enginehouse.engines.arguments import option
from enginehouse.engines.descriptor import (
    Assignment,
    DrainSignal,
    EngineDescriptor,
    EngineSpec,
    Launch,
)
from enginehouse.engines.llama_cpp.descriptor import LlamaCppEngine
from enginehouse.engines.options import EngineOption
from enginehouse.v1 import common_pb2

_BATCH_TOKENS = 512
_PROMPT_CACHE_MIB = 256
# Errors alone: its warnings quote bodies that it cannot parse.
_LOG_ERRORS = 1
_VISION_FLAGS = frozenset({"--mmproj", "--mmproj-url", "-mm"})


class LlamaServerEngine(EngineDescriptor):
    """`llama-server`. It is the server inside xllamacpp, in a program of its own, with GPU backends of its own choice.

    After SIGTERM it waits for what runs, up to 30 s for a stream and without end for a unary request, so the node
    drains it first and SIGKILL follows soon. Layers are dealt out over accelerators (`pipeline_parallel`) or each is
    spread over them (`tensor_parallel`, its split mode "row"); it cannot do both.
    """

    kind = "llama-server"
    traits = replace(
        LlamaCppEngine.traits,
        drain=DrainSignal(grace_s=5.0),
        options=frozenset(
            {
                EngineOption.PROGRAM,
                EngineOption.SERVED_NAMES,
                EngineOption.TENSOR_PARALLEL,
                EngineOption.PIPELINE_PARALLEL,
                EngineOption.LORA_ADAPTERS,
                EngineOption.CONTAINER,
                EngineOption.MODEL_REVISION,
                EngineOption.MODEL_SHA256,
            }
        ),
        accelerator_share=1.0,
        quirks=replace(
            LlamaCppEngine.traits.quirks,
            notes=(
                "Its LoRA adapters are applied to every request; a request cannot choose one.",
                "After SIGTERM it waits for a unary request without end.",
            ),
        ),
    )

    def model_source(self, spec: EngineSpec) -> str:
        """A GGUF file, one on the hub as owner/name:file, or "builtin:smollm2"."""
        return self.located_source(spec)

    def features(self, spec: EngineSpec) -> tuple[common_pb2.Feature.ValueType, ...]:
        """The kind's, and images where a projector for them is named. Adapters are not a request's to choose."""
        flags = {argument.partition("=")[0] for argument in spec.settings.arguments}
        return (*self.traits.features, common_pb2.FEATURE_VISION) if flags & _VISION_FLAGS else self.traits.features

    def check(self, spec: EngineSpec) -> None:
        """Refuses a split that it cannot make.

        Raises:
            RequestError: both kinds of parallelism are asked for.
        """
        super().check(spec)
        tensor, pipeline = spec.settings.tensor_parallel, spec.settings.pipeline_parallel
        if tensor > 1 and pipeline > 1:
            raise RequestError(
                f"{spec.deployment}: engine {self.kind} splits by layers or by rows, not both; tensor_parallel is "
                f"{tensor} and pipeline_parallel is {pipeline}"
            )

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """The program's command line."""
        settings, bounds = spec.settings, self.bounds(spec)
        split = "row" if settings.tensor_parallel > 1 else "layer" if settings.pipeline_parallel > 1 else ""
        command = (
            *(settings.program or "llama-server", "--model", assignment.model),
            *("--alias", ",".join((spec.served_model, *settings.served_names))),
            *("--host", assignment.host, "--port", str(assignment.port)),
            *("--ctx-size", str(bounds.context_tokens_max * bounds.parallel), "--parallel", str(bounds.parallel)),
            *("--n-predict", str(bounds.output_tokens_max), "--batch-size", str(_BATCH_TOKENS)),
            *("--threads", str(bounds.threads), "--threads-batch", str(bounds.threads)),
            *("--n-gpu-layers", "all" if assignment.accelerators else "0"),
            *option("--split-mode", split),
            *option("--lora", ",".join(adapter.source for adapter in settings.lora_adapters)),
            *("--fit", "off", "--cache-ram", str(_PROMPT_CACHE_MIB), "--log-verbosity", str(_LOG_ERRORS)),
            *("--metrics", "--no-webui", "--no-slots"),
            *settings.arguments,
        )
        return Launch(command, {"OMP_NUM_THREADS": str(bounds.threads)})
