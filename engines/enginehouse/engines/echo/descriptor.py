"""The echo engine, as Enginehouse starts it."""

import sys

from enginehouse.engines.descriptor import (
    Assignment,
    Bounds,
    DrainSignal,
    EngineDescriptor,
    EngineSpec,
    EngineTraits,
    Launch,
    StartTimeouts,
)
from enginehouse.engines.metrics import MetricsMapping
from enginehouse.v1 import common_pb2

_MODEL_SOURCES = ("", "builtin:echo")


class EchoEngine(EngineDescriptor):
    """No model, no wait; see `server`."""

    kind = "echo"
    traits = EngineTraits(
        operations=(
            common_pb2.OPERATION_CHAT,
            common_pb2.OPERATION_COMPLETION,
            common_pb2.OPERATION_EMBEDDING,
            common_pb2.OPERATION_RERANK,
            common_pb2.OPERATION_COUNT_TOKENS,
        ),
        features=(
            common_pb2.FEATURE_STREAM,
            common_pb2.FEATURE_SEED,
            common_pb2.FEATURE_STOP_SEQUENCES,
            common_pb2.FEATURE_MULTIPLE_CHOICES,
            common_pb2.FEATURE_EMBEDDING_DIMENSIONS,
        ),
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=8192, output_tokens_max=1024, parallel=256, threads=1),
        stream_usage_members='"usage_per_chunk":true',
        metrics=MetricsMapping(
            running="echo:requests_running",
            waiting="echo:requests_waiting",
            progress=("echo:steps_total",),
            prompt_tokens_total="echo:prompt_tokens_total",
            generated_tokens_total="echo:generation_tokens_total",
        ),
        drain=DrainSignal(grace_s=5.0),
        start=StartTimeouts(starting_s=30.0, loading_s=30.0, attempt_s=10.0),
    )

    def check(self, spec: EngineSpec) -> None:
        """Refuses a model: there is none to choose.

        Raises:
            RequestError: a model source is set.
        """
        super().check(spec)
        if spec.settings.model_source not in _MODEL_SOURCES:
            raise self.refuse_model(spec, "it has no model: leave it out, or write builtin:echo")

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """The echo server's command line."""
        bounds = self.bounds(spec)
        return Launch(
            (
                *(sys.executable, "-P", "-m", "enginehouse.engines.echo.server"),
                *("--host", assignment.host, "--port", str(assignment.port), "--served-model", spec.served_model),
                *("--context-tokens-max", str(bounds.context_tokens_max)),
                *("--output-tokens-max", str(bounds.output_tokens_max)),
                *("--parallel", str(bounds.parallel)),
                *spec.settings.arguments,
            )
        )
