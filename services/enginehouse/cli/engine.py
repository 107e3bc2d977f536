"""`enginehouse engine`: one engine, without a mesh.

Also a program of its own, ``python -m enginehouse.cli.engine emulate``, which imports nothing that it does not need.
"""

import asyncio
import logging
import sys
from typing import Annotated

import typer

from enginehouse.cli.main import run_command

app = typer.Typer(
    help="Engines without a mesh.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_KINDS = "vllm, tgi, tensorrt-llm, sglang, llama-cpp or mlx."
_FAULT_HELP = (
    "The first requests go wrong: refuse, unavailable, hang, die, cut, error_frame, slow or garbage, after so many "
    "tokens, for so many requests. May be repeated."
)


@app.callback()
def engine() -> None:
    """Keeps `emulate` a subcommand, however few there are."""


@app.command("emulate")
def emulate(
    kind: Annotated[str, typer.Option(help=_KINDS)],
    model: Annotated[list[str] | None, typer.Option(help="A name of the model. May be repeated.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one, which the log names.")] = 8000,
    grpc: Annotated[bool, typer.Option("--grpc", help="The engine's gRPC face instead of HTTP.")] = False,
    context_tokens_max: Annotated[int | None, typer.Option(min=2, help="Prompt and output of one request.")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, help="Requests side by side.")] = None,
    queue_max: Annotated[int | None, typer.Option(min=0, help="Requests that may wait.")] = None,
    prefill_rate: Annotated[float, typer.Option(min=0, help="Prompt tokens a second; 0: at once.")] = 0.0,
    decode_rate: Annotated[float, typer.Option(min=0, help="Tokens a second of one request; 0: at once.")] = 0.0,
    throughput: Annotated[float, typer.Option(min=0, help="Tokens a second of all requests; 0: no limit.")] = 0.0,
    load_s: Annotated[float, typer.Option(min=0, help="Seconds until the model is loaded.")] = 0.0,
    warmup_s: Annotated[float, typer.Option(min=0, help="Seconds from then until it is ready.")] = 0.0,
    drain_s: Annotated[float | None, typer.Option(min=0, help="Seconds that requests get after SIGTERM.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="ENGINEHOUSE_EMULATE_API_KEY", help="Ask for this key.")] = None,
    force_usage: Annotated[bool, typer.Option("--force-usage", help="Usage in every stream (vllm).")] = False,
    sleep_mode: Annotated[bool, typer.Option("--sleep-mode", help="It can be put to sleep (vllm).")] = False,
    controls: Annotated[bool, typer.Option("--controls", help="Offer /emulator/...; for tests alone.")] = False,
    fault: Annotated[list[str] | None, typer.Option(metavar="KIND[:AFTER_TOKENS[:REQUESTS]]", help=_FAULT_HELP)] = None,
) -> None:
    """Answer as an engine would, without a model, until SIGTERM. What is left out is the engine's default."""
    from enginehouse.engines.emulators import EmulatorOptions, Face, Pace, make_emulation, parse_fault, serve

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options = EmulatorOptions(
        models=tuple(model or ("emulated",)),
        host=host,
        port=port,
        face=Face.GRPC if grpc else Face.HTTP,
        context_tokens_max=context_tokens_max,
        places=parallel,
        queue_max=queue_max,
        pace=Pace(prefill_rate, decode_rate, throughput),
        load_s=load_s,
        warmup_s=warmup_s,
        drain_s=drain_s,
        api_key=api_key,
        forces_usage=force_usage,
        sleep_mode=sleep_mode,
        controls=controls,
        faults=tuple(parse_fault(text) for text in fault or ()),
    )

    async def run() -> None:
        await serve(make_emulation(kind, options))

    asyncio.run(run())


if __name__ == "__main__":
    run_command(app)
