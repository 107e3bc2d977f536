"""What the echo engine is told on its command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

BODY_BYTES_MAX = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EchoSettings:
    """See the help texts of `parse_arguments`."""

    host: str
    port: int
    served_models: tuple[str, ...]
    context_tokens_max: int
    output_tokens_max: int
    parallel: int
    waiting_max: int
    tokens_per_second: float
    choices_max: int
    dimensions: int
    test_controls: bool


def parse_arguments(arguments: Sequence[str] | None = None) -> EchoSettings:
    """The settings of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m enginehouse.engines.echo.server",
        description="An engine without a model: it says back what it is told.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model", action="append", required=True, help="name of the model; may be repeated")
    parser.add_argument("--context-tokens-max", type=int, default=8192, help="prompt and output of one request")
    parser.add_argument("--output-tokens-max", type=int, default=1024, help="output of one choice, whatever is asked")
    parser.add_argument("--parallel", type=int, default=256, help="requests answered side by side; more of them wait")
    parser.add_argument("--waiting-max", type=int, default=4096, help="requests that may wait; one more gets a 503")
    parser.add_argument("--tokens-per-second", type=float, default=0.0, help="pace of each request; 0: at once")
    parser.add_argument("--choices-max", type=int, default=16, help="largest n, times the prompts of one request")
    parser.add_argument("--dimensions", type=int, default=64, help="of embeddings, unless the request says")
    parser.add_argument("--test-controls", action="store_true", help="offer /gate and /faults; for tests alone")
    parsed = parser.parse_args(arguments)
    return EchoSettings(
        host=parsed.host,
        port=parsed.port,
        served_models=tuple(parsed.served_model),
        context_tokens_max=parsed.context_tokens_max,
        output_tokens_max=parsed.output_tokens_max,
        parallel=parsed.parallel,
        waiting_max=parsed.waiting_max,
        tokens_per_second=parsed.tokens_per_second,
        choices_max=parsed.choices_max,
        dimensions=parsed.dimensions,
        test_controls=parsed.test_controls,
    )
