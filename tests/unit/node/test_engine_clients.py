"""Who speaks to which engine, and for how long."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from enginehouse.adapters.openai import OpenAIEngine, open_session
from enginehouse.adapters.tgi import TgiEngine
from enginehouse.contract import RequestError
from enginehouse.services.node.engine_clients import HeldClients, engine_client
from enginehouse.v1 import admin_pb2, node_pb2

HTTP, NATIVE, GRPC = (
    admin_pb2.ENGINE_API_UNSPECIFIED,
    admin_pb2.ENGINE_API_NATIVE,
    admin_pb2.ENGINE_API_GRPC,
)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


def replica(name: str, address: str) -> node_pb2.Replica:
    return node_pb2.Replica(id=name, engine="tgi", address=address)


@pytest.mark.parametrize("kind", ["vllm", "tgi", "mlx", "external", "some-plugin"])
async def test_every_kind_speaks_openais_api_unless_told_otherwise(kind: str, session: aiohttp.ClientSession) -> None:
    assert isinstance(engine_client(kind, HTTP, "127.0.0.1:9", session), OpenAIEngine)


async def test_an_api_of_its_own_is_chosen_by_name(session: aiohttp.ClientSession) -> None:
    assert isinstance(engine_client("tgi", NATIVE, "127.0.0.1:9", session), TgiEngine)


@pytest.mark.parametrize(("kind", "api", "name"), [("mlx", GRPC, "grpc"), ("vllm", NATIVE, "native")])
async def test_an_api_that_the_kind_does_not_have_is_refused_by_name(
    kind: str, api: admin_pb2.EngineApi.ValueType, name: str, session: aiohttp.ClientSession
) -> None:
    with pytest.raises(RequestError, match=f"the engine {kind} cannot be spoken to by the api '{name}'"):
        engine_client(kind, api, "127.0.0.1:9", session)


async def test_a_client_is_kept_for_as_long_as_its_replica_is_where_it_was(session: aiohttp.ClientSession) -> None:
    held = {"a", "b"}
    clients = HeldClients(session, lambda name: name in held)
    first = await clients.get(replica("a", "127.0.0.1:9"), HTTP)
    assert await clients.get(replica("a", "127.0.0.1:9"), HTTP) is first
    assert await clients.get(replica("a", "127.0.0.1:10"), HTTP) is not first
    assert isinstance(await clients.get(replica("a", "127.0.0.1:10"), NATIVE), TgiEngine)


async def test_clients_that_nobody_needs_are_closed(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []

    async def note(client: OpenAIEngine) -> None:
        closed.append(client)

    monkeypatch.setattr(OpenAIEngine, "aclose", note)
    held = {"a", "b"}
    clients = HeldClients(session, lambda name: name in held)
    gone = await clients.get(replica("a", "127.0.0.1:9"), HTTP)
    held.remove("a")
    left = await clients.get(replica("b", "127.0.0.1:10"), HTTP)
    assert closed == [gone]
    await clients.aclose()
    assert closed == [gone, left]
