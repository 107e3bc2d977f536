"""A stand-in for the program of an engine that cannot run here: its command line, with an emulator behind it.

``python -P shim.py KIND [--decode-rate RATE] -- ARGUMENT ...`` takes the arguments that a descriptor writes. One that
the real program does not know is an error, as it is there: then it prints a usage and ends with 2.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command line asks for, in the words of `EmulatorOptions`; None leaves it to the engine."""

    models: tuple[str, ...]
    host: str
    port: int
    places: int
    context_tokens_max: int | None = None
    queue_max: int | None = None
    drain_s: float | None = None
    has_grpc: bool = False
    forces_usage: bool = False
    sleep_mode: bool = False


Read = Callable[[list[str]], Wanted]


def _parser(program: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=program, allow_abbrev=False)


def _read_vllm(arguments: list[str]) -> Wanted:
    """`vllm serve`, flags of 0.32."""
    parser = _parser("vllm serve")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--served-model-name", nargs="+", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--max-num-seqs", type=int, required=True)
    parser.add_argument("--shutdown-timeout", type=float, default=0.0)
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--enable-force-include-usage", action="store_true")
    parser.add_argument("--enable-sleep-mode", action="store_true")
    for flag in ("--enable-auto-tool-choice", "--enable-lora", "--no-enable-log-requests", "--enforce-eager"):
        parser.add_argument(flag, action="store_true")
    for flag in ("--tool-call-parser", "--reasoning-parser", "--override-generation-config", "--quantization"):
        parser.add_argument(flag)
    for flag in ("--tensor-parallel-size", "--pipeline-parallel-size", "--gpu-memory-utilization", "--max-loras"):
        parser.add_argument(flag, type=float)
    parser.add_argument("--lora-modules", nargs="+")
    given = parser.parse_args(arguments)
    return Wanted(
        models=tuple(given.served_model_name),
        host=given.host,
        port=given.port,
        has_grpc=given.grpc,
        context_tokens_max=given.max_model_len,
        places=given.max_num_seqs,
        drain_s=given.shutdown_timeout,
        forces_usage=given.enable_force_include_usage,
        sleep_mode=os.environ.get("VLLM_SERVER_DEV_MODE") == "1",
    )


def _read_tgi(arguments: list[str]) -> Wanted:
    """`text-generation-launcher`, flags of 3.3."""
    parser = _parser("text-generation-launcher")
    for flag in ("--model-id", "--hostname", "--shard-uds-path"):
        parser.add_argument(flag, required=True)
    for flag in ("--port", "--prometheus-port", "--master-port", "--max-total-tokens", "--max-input-tokens"):
        parser.add_argument(flag, type=int, required=True)
    for flag in ("--max-batch-size", "--max-concurrent-requests"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--graceful-termination-timeout", type=float, default=90.0)
    parser.add_argument("--usage-stats", choices=["on", "off", "no-stack"])
    for flag in ("--num-shard", "--cuda-memory-fraction"):
        parser.add_argument(flag, type=float)
    for flag in ("--quantize", "--lora-adapters"):
        parser.add_argument(flag)
    given = parser.parse_args(arguments)
    return Wanted(
        models=(given.model_id,),
        host=given.hostname,
        port=given.port,
        context_tokens_max=given.max_total_tokens,
        places=given.max_batch_size,
        queue_max=given.max_concurrent_requests - given.max_batch_size,
        drain_s=given.graceful_termination_timeout,
    )


def _read_tensorrt_llm(arguments: list[str]) -> Wanted:
    """`trtllm-serve`, flags of 1.2."""
    parser = _parser("trtllm-serve")
    parser.add_argument("model")
    parser.add_argument("--host", required=True)
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--backend", choices=["pytorch", "tensorrt"], required=True)
    parser.add_argument("--config", type=Path, required=True)
    for flag in ("--port", "--max_batch_size", "--max_seq_len", "--max_num_tokens", "--tp_size", "--pp_size"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--kv_cache_free_gpu_memory_fraction", type=float)
    given = parser.parse_args(arguments)
    if not given.config.is_file():
        parser.error(f"--config: there is no file {given.config}")
    return Wanted(
        models=(Path(given.model).name,),
        host=given.host,
        port=given.port,
        has_grpc=given.grpc,
        context_tokens_max=given.max_seq_len,
        places=given.max_batch_size,
    )


def _read_sglang(arguments: list[str]) -> Wanted:
    """`python -m sglang.launch_server`, flags of 0.5; the program is the interpreter."""
    parser = _parser("python")
    parser.add_argument("-m", dest="module", choices=["sglang.launch_server"], required=True)
    for flag in ("--model-path", "--served-model-name", "--host"):
        parser.add_argument(flag, required=True)
    for flag in ("--port", "--nccl-port", "--context-length", "--max-running-requests"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--enable-metrics", action="store_true")
    parser.add_argument("--enable-lora", action="store_true")
    for flag in ("--tp-size", "--pp-size", "--mem-fraction-static", "--max-loras-per-batch"):
        parser.add_argument(flag, type=float)
    for flag in ("--quantization", "--tool-call-parser", "--reasoning-parser"):
        parser.add_argument(flag)
    parser.add_argument("--lora-paths", nargs="+")
    given = parser.parse_args(arguments)
    if not given.enable_metrics:
        parser.error("--enable-metrics: without it there is no /metrics to read")
    return Wanted(
        models=(given.served_model_name,),
        host=given.host,
        port=given.port,
        context_tokens_max=given.context_length,
        places=given.max_running_requests,
    )


def _read_llama_server(arguments: list[str]) -> Wanted:
    """`llama-server`, flags of October 2026."""
    parser = _parser("llama-server")
    for flag in ("--model", "--alias", "--host", "--n-gpu-layers"):
        parser.add_argument(flag, required=True)
    for flag in ("--port", "--ctx-size", "--parallel"):
        parser.add_argument(flag, type=int, required=True)
    for flag in ("--n-predict", "--batch-size", "--threads", "--threads-batch", "--cache-ram", "--log-verbosity"):
        parser.add_argument(flag, type=int)
    for flag in ("--split-mode", "--lora", "--fit"):
        parser.add_argument(flag)
    for flag in ("--metrics", "--no-webui", "--no-slots"):
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args(arguments)
    if not given.metrics:
        parser.error("--metrics: without it there is no /metrics to read")
    return Wanted(
        models=tuple(given.alias.split(",")),
        host=given.host,
        port=given.port,
        context_tokens_max=given.ctx_size // given.parallel,
        places=given.parallel,
        drain_s=30.0,
    )


def _read_mlx(arguments: list[str]) -> Wanted:
    """`mlx_lm.server`, flags of 0.32. Its context is the model's own, so no flag bounds it."""
    parser = _parser("mlx_lm.server")
    for flag in ("--model", "--host"):
        parser.add_argument(flag, required=True)
    for flag in ("--port", "--decode-concurrency", "--prompt-concurrency", "--max-tokens"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--adapter-path")
    given = parser.parse_args(arguments)
    return Wanted(models=(given.model,), host=given.host, port=given.port, places=given.decode_concurrency)


_READERS: Mapping[str, Read] = {
    "vllm": _read_vllm,
    "tgi": _read_tgi,
    "tensorrt-llm": _read_tensorrt_llm,
    "sglang": _read_sglang,
    "llama-cpp": _read_llama_server,
    "mlx": _read_mlx,
}


def write_program(path: Path, emulator: str, *, decode_rate: float) -> Path:
    """Writes an executable that runs this module in the place of an engine's program.

    Args:
        path: of the executable.
        emulator: a kind of `enginehouse engine emulate`.
        decode_rate: tokens a second of one request, so that a generation can be met while it runs.
    """
    module = Path(__file__).resolve()
    path.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -P "{module}" {emulator} --decode-rate {decode_rate:g} -- "$@"\n'
    )
    path.chmod(0o755)
    return path


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    split = sys.argv.index("--")
    parser = argparse.ArgumentParser(prog="shim.py", allow_abbrev=False)
    parser.add_argument("kind", choices=sorted(_READERS))
    parser.add_argument("--decode-rate", type=float, default=0.0)
    own = parser.parse_args(sys.argv[1:split])
    wanted = _READERS[own.kind](sys.argv[split + 1 :])
    # Only now: a command line that is refused is refused at once.
    from enginehouse.engines.emulators import EmulatorOptions, Face, Pace, make_emulation, serve

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options = EmulatorOptions(
        models=wanted.models,
        host=wanted.host,
        port=wanted.port,
        face=Face.GRPC if wanted.has_grpc else Face.HTTP,
        context_tokens_max=wanted.context_tokens_max,
        places=wanted.places,
        queue_max=wanted.queue_max,
        pace=Pace(decode=own.decode_rate),
        drain_s=wanted.drain_s,
        forces_usage=wanted.forces_usage,
        sleep_mode=wanted.sleep_mode,
    )

    async def run() -> None:
        await serve(make_emulation(own.kind, options))

    asyncio.run(run())


if __name__ == "__main__":
    main()
