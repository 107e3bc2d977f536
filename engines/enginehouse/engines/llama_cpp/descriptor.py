"""llama.cpp through xllamacpp, as Enginehouse starts it."""

import sys

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


class LlamaCppEngine(EngineDescriptor):
    """The embedded engine for text; see `server`.

    Ran with xllamacpp 2026.10: the launch bounds the output only of requests that name no limit themselves, a larger
    `max_tokens` wins, so the limit of every request has to be written into its body. Of the members that set it the
    first of `output_limit_members` wins; of a repeated member the last. With `n` above 1, or a list of prompts, usage
    counts one choice alone. Requests beyond `parallel` wait in a queue without end. Tools are accepted and then dropped
    silently by a chat template that has none, so they are not offered.
    """

    kind = "llama-cpp"
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
        ),
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=4096, output_tokens_max=1024, parallel=1, threads=1),
        stream_usage_members='"timings_per_token":true',
        metrics=MetricsMapping(
            running="llamacpp:requests_processing",
            waiting="llamacpp:requests_deferred",
            progress=("llamacpp:n_decode_total",),  # the token counters move only when a request ends
            prompt_tokens_total="llamacpp:prompt_tokens_total",
            generated_tokens_total="llamacpp:tokens_predicted_total",
            prompt_seconds_total="llamacpp:prompt_seconds_total",
            generated_seconds_total="llamacpp:tokens_predicted_seconds_total",
        ),
        drain=DrainSignal(grace_s=5.0),
        start=StartTimeouts(starting_s=60.0, loading_s=600.0, attempt_s=60.0),
        quirks=Quirks(
            usage_covers_choices=False,
            output_limit_members=("n_predict", "max_completion_tokens", "max_tokens"),
        ),
        options=frozenset({EngineOption.MODEL_REVISION, EngineOption.MODEL_SHA256}),
    )

    def model_source(self, spec: EngineSpec) -> str:
        """A GGUF file, one on the hub as owner/name:file, or "builtin:smollm2"."""
        return self.located_source(spec)

    def check(self, spec: EngineSpec) -> None:
        """Refuses a replica without a model.

        Raises:
            RequestError: there is no model source.
        """
        super().check(spec)
        if not spec.settings.model_source and not spec.settings.external_url:
            raise self.refuse_model(spec, "give the path of a GGUF file, or builtin:smollm2")

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """The llama.cpp server's command line."""
        bounds = self.bounds(spec)
        return Launch(
            (
                *(sys.executable, "-P", "-m", "enginehouse.engines.llama_cpp.server", "--model", assignment.model),
                *("--host", assignment.host, "--port", str(assignment.port), "--served-model", spec.served_model),
                *("--context-tokens-max", str(bounds.context_tokens_max)),
                *("--output-tokens-max", str(bounds.output_tokens_max)),
                *("--parallel", str(bounds.parallel), "--threads", str(bounds.threads)),
                *spec.settings.arguments,
            ),
            {"OMP_NUM_THREADS": str(bounds.threads)},
        )
