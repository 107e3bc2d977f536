"""MLX, as Enginehouse starts it."""

from enginehouse.contract import RequestError
from enginehouse.engines.arguments import option
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
from enginehouse.engines.options import EngineOption
from enginehouse.v1 import common_pb2


class MlxEngine(EngineDescriptor):
    """`mlx_lm.server`, which ran on Linux CPUs.

    It loads the model at the first request, and fetches any model that a request names: requests name
    "default_model". It has no metrics, so it is asked for a token to learn whether it lives. Either signal cuts its
    streams, which end with the connection, so that a cut one looks finished: they take the adapter lane. On SIGINT it
    aborts, and where a shell started us in the background it inherits that SIGINT is ignored: it gets SIGTERM.
    """

    kind = "mlx"
    traits = EngineTraits(
        operations=(common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION),
        features=(
            common_pb2.FEATURE_STREAM,
            common_pb2.FEATURE_SEED,
            common_pb2.FEATURE_STOP_SEQUENCES,
        ),
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=4096, output_tokens_max=512, parallel=1, threads=1),
        drain=DrainSignal(grace_s=10.0),
        start=StartTimeouts(starting_s=120.0, loading_s=600.0, attempt_s=300.0),
        quirks=Quirks(
            failed_streams_show=False,
            output_limit_members=("max_completion_tokens", "max_tokens"),
            request_model="default_model",
            notes=(
                "/health is always 200, also before the model is loaded.",
                "/v1/models may be empty.",
                "It goes on after a stop sequence that is not made of whole tokens, so we cut its text off ourselves.",
                "Its context is the model's own; context_tokens_max is held by the router alone.",
            ),
        ),
        options=frozenset({EngineOption.PROGRAM, EngineOption.LORA_ADAPTERS, EngineOption.MODEL_REVISION}),
        accelerator_share=1.0,
    )

    def model_source(self, spec: EngineSpec) -> str:
        """A folder of an MLX or Hugging Face model, or the id of one on the hub."""
        return self.located_source(spec)

    def features(self, spec: EngineSpec) -> tuple[common_pb2.Feature.ValueType, ...]:
        """The kind's: an adapter is not a request's to choose."""
        return self.traits.features

    def check(self, spec: EngineSpec) -> None:
        """Refuses more than one adapter.

        Raises:
            RequestError: there are two or more.
        """
        super().check(spec)
        if len(spec.settings.lora_adapters) > 1:
            raise RequestError(f"{spec.deployment}: engine {self.kind} takes one of lora_adapters, not more")

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """The server's command line."""
        settings, bounds = spec.settings, self.bounds(spec)
        command = (
            *(settings.program or "mlx_lm.server", "--model", assignment.model),
            *("--host", assignment.host, "--port", str(assignment.port)),
            *("--max-tokens", str(bounds.output_tokens_max)),
            *("--decode-concurrency", str(bounds.parallel), "--prompt-concurrency", "1"),
            *(arg for adapter in settings.lora_adapters for arg in option("--adapter-path", adapter.source)),
            *settings.arguments,
        )
        return Launch(command, {"OMP_NUM_THREADS": str(bounds.threads), "HF_HUB_OFFLINE": "1"})
