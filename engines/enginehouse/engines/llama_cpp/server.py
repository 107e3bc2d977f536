"""The llama.cpp engine: ``python -m enginehouse.engines.llama_cpp.server``.

The C++ HTTP server of llama.cpp, started through xllamacpp, in a process of its own: a native crash takes nothing with
it. What llama.cpp serves is described in its tools/server/README.md.
"""

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LOG = logging.getLogger(__name__)
# Only errors: llama.cpp's warnings quote bodies that it cannot parse, prompts and all (ran).
_LOG_ERRORS = 1
# Between two batches of a prompt llama.cpp answers nothing, its metrics included: short ones show that it lives.
_BATCH_TOKENS = 512
# RAM in which llama.cpp keeps the prompts of idle slots; 8192 by default, for each engine process.
_PROMPT_CACHE_MIB = 256


@dataclass(frozen=True, slots=True)
class LlamaCppSettings:
    """See the help texts of `parse_arguments`."""

    model: Path
    host: str
    port: int
    served_model: str
    context_tokens_max: int
    output_tokens_max: int
    parallel: int
    threads: int
    gpu_layers: int
    prompt_cache_mib: int


def parse_arguments(arguments: Sequence[str] | None = None) -> LlamaCppSettings:
    """The settings of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m enginehouse.engines.llama_cpp.server", description="llama.cpp's HTTP server."
    )
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model", required=True, help="name of the model")
    parser.add_argument("--context-tokens-max", type=int, default=4096, help="prompt and output of one request")
    parser.add_argument("--output-tokens-max", type=int, default=1024, help="for requests that do not say")
    parser.add_argument("--parallel", type=int, default=1, help="requests side by side; more of them wait")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu-layers", type=int, default=0, help="layers to put on a GPU")
    parser.add_argument("--prompt-cache-mib", type=int, default=_PROMPT_CACHE_MIB, help="RAM for prompts of idle slots")
    return LlamaCppSettings(**vars(parser.parse_args(arguments)))


def main() -> None:
    """Loads the model and serves it until SIGTERM or SIGINT."""
    settings = parse_arguments()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if not settings.model.is_file():
        _LOG.error("no model file %s", settings.model)
        sys.exit(2)
    _LOG.info("loading %s", settings.model.name)
    _server = _start(settings)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # until here they end the process at once, as they should
        signal.signal(number, lambda *_: asked.set())
    _LOG.info("listening on %s:%d", settings.host, settings.port)
    asked.wait()
    _LOG.info("asked to end")
    logging.shutdown()
    # Destroying the server waits for unary requests for ever (ran, xllamacpp 2026.10), so the process ends around it.
    # What still runs is cut, and its clients see a broken transport.
    os._exit(0)


def _start(settings: LlamaCppSettings) -> object:
    """The running server. It is destroyed with its last reference."""
    xllamacpp = importlib.import_module("xllamacpp")  # a native module without types
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(settings.model)
    parameters.model_alias = {settings.served_model}
    parameters.hostnames = [settings.host]
    parameters.port = settings.port
    parameters.n_parallel = settings.parallel
    parameters.n_ctx = settings.context_tokens_max * settings.parallel  # split over the slots
    parameters.n_batch = _BATCH_TOKENS
    parameters.n_predict = settings.output_tokens_max
    parameters.cpuparams.n_threads = settings.threads
    parameters.cpuparams_batch.n_threads = settings.threads
    parameters.n_gpu_layers = settings.gpu_layers
    parameters.fit_params = False  # it would change the context that was declared
    parameters.cache_ram_mib = settings.prompt_cache_mib
    parameters.endpoint_metrics = True
    parameters.cors_origins = ""  # no page in a browser has any business here
    parameters.ui = False
    parameters.verbosity = _LOG_ERRORS
    server: object = xllamacpp.Server(parameters)
    return server


if __name__ == "__main__":
    main()
