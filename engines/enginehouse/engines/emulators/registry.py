"""The engines that can be emulated."""

from importlib import import_module

from enginehouse.contract import RequestError
from enginehouse.engines.emulators.core.emulation import Emulation
from enginehouse.engines.emulators.core.options import EmulatorOptions

_CLASSES = {
    "vllm": ("vllm", "VllmEmulation"),
    "tgi": ("tgi", "TgiEmulation"),
    "tensorrt-llm": ("tensorrt_llm", "TensorRtLlmEmulation"),
    "sglang": ("sglang", "SglangEmulation"),
    "llama-cpp": ("llama_cpp", "LlamaCppEmulation"),
    "mlx": ("mlx", "MlxEmulation"),
}
KINDS = tuple(_CLASSES)


def make_emulation(kind: str, options: EmulatorOptions) -> Emulation:
    """The emulation of an engine. It needs a running event loop.

    Raises:
        RequestError: there is none of that kind.
    """
    if kind not in _CLASSES:
        raise RequestError(f"there is no emulator of {kind!r}; there are {', '.join(KINDS)}")
    package, name = _CLASSES[kind]
    emulation: Emulation = getattr(import_module(f"enginehouse.engines.emulators.{package}"), name)(options)
    return emulation
