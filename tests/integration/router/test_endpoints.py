"""What a router tells Envoys of engines, and when it says nothing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from enginehouse.services.router.endpoints import CLUSTER_ENGINES, METHOD, EndpointDiscovery
from enginehouse.services.server import channel
from enginehouse.v1.envoy_discovery_pb2 import DiscoveryAnswer, DiscoveryQuery, EndpointAssignment

Stream = grpc.aio.StreamStreamCall[Any, DiscoveryAnswer]


class Discovery:
    """A discovery service, and an Envoy that follows its engines."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.service = EndpointDiscovery(lambda: None, lambda _: self.asked.set())
        self.stream: Stream

    async def next_addresses(self) -> list[str]:
        """What the next answer names."""
        answer = await anext(aiter(self.stream))
        assignment = EndpointAssignment.FromString(answer.resources[0].value)
        sockets = [one.endpoint.address.socket_address for part in assignment.endpoints for one in part.lb_endpoints]
        return [f"{socket.address}:{socket.port_value}" for socket in sockets]


@pytest.fixture
async def discovery() -> AsyncIterator[Discovery]:
    server, made = grpc.aio.server(), Discovery()
    server.add_generic_rpc_handlers((made.service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with channel(f"127.0.0.1:{port}") as opened:
        made.stream = opened.stream_stream(
            METHOD,
            request_serializer=DiscoveryQuery.SerializeToString,
            response_deserializer=DiscoveryAnswer.FromString,
        )()
        query = DiscoveryQuery(resource_names=[CLUSTER_ENGINES])
        query.node.id = "envoy-1"
        await made.stream.write(query)
        await made.asked.wait()
        yield made
        made.stream.cancel()
    await server.stop(grace=None)


async def test_router_that_does_not_know_its_fleet_yet_takes_no_endpoint_away(discovery: Discovery) -> None:
    discovery.service.set_endpoints(CLUSTER_ENGINES, ["127.0.0.1:9001"])
    discovery.service.set_endpoints(CLUSTER_ENGINES, ["127.0.0.1:9001", "127.0.0.1:9002"])
    discovery.service.begin()
    assert sorted(await discovery.next_addresses()) == ["127.0.0.1:9001", "127.0.0.1:9002"]


async def test_every_change_is_told(discovery: Discovery) -> None:
    discovery.service.begin()
    assert await discovery.next_addresses() == []
    discovery.service.set_endpoints(CLUSTER_ENGINES, ["127.0.0.1:9001"])
    assert await discovery.next_addresses() == ["127.0.0.1:9001"]
