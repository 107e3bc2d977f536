"""`enginehouse engine run`: one supervised engine without a mesh, which is what one tries first."""

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from enginehouse.contract import EngineError, Reason, RequestError
from enginehouse.engines import Transition, state_name
from enginehouse.services.settings.resources import engine_api
from enginehouse.services.single import LOG_FOLDER, Engine
from enginehouse.v1 import admin_pb2, node_pb2


class Api(StrEnum):
    """What an engine is asked in."""

    OPENAI = "openai"
    NATIVE = "native"
    GRPC = "grpc"


def run(
    kind: Annotated[str, typer.Option(help="The kind of engine, for example llama-cpp or vllm.")],
    api: Annotated[Api, typer.Option(help="What it is asked in; not every kind has each.")] = Api.OPENAI,
    model: Annotated[str, typer.Option(help="A path, a hub's OWNER/NAME, or builtin:NAME.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="On loopback; 0: a free one.")] = 0,
    name: Annotated[str, typer.Option(help="What requests call the model. Default: from --model.")] = "",
    context_tokens_max: Annotated[int, typer.Option(min=0, help="Prompt and output of one request; 0: default.")] = 0,
    output_tokens_max: Annotated[int, typer.Option(min=0, help="Output of one request; 0: default.")] = 0,
    parallel: Annotated[int, typer.Option(min=0, help="Requests side by side; 0: default.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="0: default.")] = 0,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Accelerators over which each layer is spread.")] = 1,
    pipeline_parallel: Annotated[int, typer.Option(min=1, help="Stages over which layers are dealt out.")] = 1,
    memory_fraction: Annotated[float, typer.Option(min=0, max=1, help="Of each accelerator; 0: default.")] = 0.0,
    quantization: Annotated[str, typer.Option(help="As the engine calls it.")] = "",
    lora: Annotated[list[str] | None, typer.Option(metavar="NAME=SOURCE", help="May be given again.")] = None,
    revision: Annotated[str, typer.Option(help="Commit, tag or branch of a hub's model.")] = "",
    program: Annotated[str, typer.Option(help="The engine's program, or the interpreter that has it.")] = "",
    image: Annotated[str, typer.Option(help="Run it in a container of this image.")] = "",
    argument: Annotated[list[str] | None, typer.Option(help="One more for the engine; may be given again.")] = None,
    grace_s: Annotated[float, typer.Option(min=0, help="What requests in flight get at the end.")] = 10.0,
    log_folder: Annotated[Path, typer.Option(help="Takes what the engine writes.")] = LOG_FOLDER,
) -> None:
    """Run one engine, supervised, until Ctrl-C, which drains and ends it. Settings it does not have are refused."""
    settings = admin_pb2.EngineSettings(
        context_tokens_max=context_tokens_max,
        output_tokens_max=output_tokens_max,
        parallel=parallel,
        threads=threads,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        memory_fraction=memory_fraction,
        quantization=quantization,
        lora_adapters=[_adapter(text) for text in lora or ()],
        model_revision=revision,
        program=program,
        container=admin_pb2.Container(image=image) if image else None,
        arguments=argument or [],
        api=engine_api(api.value),
    )
    asyncio.run(_run(_Wanted(kind, model, port, name, settings, log_folder, grace_s)))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for, as `Engine.launch` takes it."""

    kind: str
    model: str
    port: int
    name: str
    settings: admin_pb2.EngineSettings
    log_folder: Path
    grace_s: float


async def _run(wanted: _Wanted) -> None:
    """Serves until a signal. One that comes before it serves, or a second one, waits for nobody."""
    asked, serves = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(_serve(wanted, asked, serves))

    def end() -> None:
        if asked.is_set() or not serves.is_set():
            serving.cancel()
        asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    with suppress(asyncio.CancelledError):
        await serving


async def _serve(wanted: _Wanted, asked: asyncio.Event, serves: asyncio.Event) -> None:
    began_s = time.monotonic()

    def tell(_: node_pb2.Replica, transition: Transition) -> None:
        at_s = time.monotonic() - began_s
        print(f"{at_s:6.1f} s  {state_name(transition.to_state)}: {transition.reason}", flush=True)

    launched = Engine.launch(
        kind=wanted.kind,
        model=wanted.model,
        port=wanted.port,
        name=wanted.name,
        settings=wanted.settings,
        log_folder=wanted.log_folder,
        grace_s=wanted.grace_s,
        on_change=tell,
    )
    async with launched as engine:
        serves.set()
        print(f"{_where(wanted, engine)}\nmodel            {engine.model}\nlog              {engine.log}")
        print("Ctrl-C drains it and ends it.", flush=True)
        await _until_asked_or_failed(engine, asked)


def _where(wanted: _Wanted, engine: Engine) -> str:
    """Where the engine is, as its clients need it."""
    if wanted.settings.api == admin_pb2.ENGINE_API_GRPC:
        return f"gRPC address     {engine.snapshot().address}"
    return f"OpenAI base URL  {engine.base_url}"


async def _until_asked_or_failed(engine: Engine, asked: asyncio.Event) -> None:
    failed = asyncio.create_task(engine.failed())
    waiting = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait((failed, waiting), return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            raise EngineError(
                f"the engine was given up: {failed.result()}; what it wrote is in {engine.log}", Reason.ENGINE_FAILED
            )
    finally:
        failed.cancel()
        waiting.cancel()


def _adapter(text: str) -> admin_pb2.LoraAdapter:
    name, equals, source = text.partition("=")
    if not equals:
        raise RequestError(f"--lora {text!r}: write NAME=SOURCE")
    return admin_pb2.LoraAdapter(name=name, source=source)
