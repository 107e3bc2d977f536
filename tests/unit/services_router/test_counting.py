"""Asking nodes for exact counts: real gRPC, a node that answers what a test tells it to."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest

from enginehouse.router import Jurisdictions, Replica, Residency
from enginehouse.router.record import residency_from_messages
from enginehouse.services.access_log import ticket_from_text
from enginehouse.services.router.counting import TICKET_METADATA, TokenCounter
from enginehouse.v1 import common_pb2, inference_pb2, router_pb2
from tests.unit.services_router.build import PRINCIPAL, replica, request

EU = Residency(allow=frozenset({"eu"}))
QUESTION = inference_pb2.CountTokensRequest(model="m", prompt="How many?")


_METHOD = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].methods_by_name["CountTokens"]


class Node:
    """Counts 7 tokens, or fails, or answers when it is let."""

    def __init__(self) -> None:
        self.address = ""
        self.tickets: list[router_pb2.Ticket] = []
        self.fails = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """The one method that is asked for."""
        rpc = grpc.unary_unary_rpc_method_handler(
            self._count,
            request_deserializer=inference_pb2.CountTokensRequest.FromString,
            response_serializer=inference_pb2.CountTokensResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(_METHOD.containing_service.full_name, {_METHOD.name: rpc})

    async def _count(
        self,
        request: inference_pb2.CountTokensRequest,
        context: grpc.aio.ServicerContext[inference_pb2.CountTokensRequest, inference_pb2.CountTokensResponse],
    ) -> inference_pb2.CountTokensResponse:
        metadata = dict(context.invocation_metadata() or ())
        self.tickets.append(ticket_from_text(str(metadata[TICKET_METADATA])))
        await self.may_answer.wait()
        if self.fails:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        return inference_pb2.CountTokensResponse(model=request.model, input_tokens=7)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made, server = Node(), grpc.aio.server()
    server.add_generic_rpc_handlers((made.handler(),))
    made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield made
    made.may_answer.set()
    await server.stop(0)


@pytest.fixture
async def counter() -> AsyncIterator[TokenCounter]:
    made = TokenCounter("router-0", timeout_s=5)
    yield made
    await made.stop()


def at(node: Node, place: str | None = "eu/de", deployment: str = "d") -> Replica:
    return replace(replica(place=place, deployment=deployment), node_address=node.address)


async def test_a_node_counts_with_a_ticket_that_lets_it_check_residency(node: Node, counter: TokenCounter) -> None:
    assert await counter.count(QUESTION, request(), [at(node)], [EU]) == (("d", 7),)
    (ticket,) = node.tickets
    assert [attempt.replica for attempt in ticket.attempts] == ["d-n0-0"]
    assert residency_from_messages(ticket.residency) == (EU,)
    assert ticket.operation == common_pb2.OPERATION_COUNT_TOKENS
    assert ticket.principal.tenant == PRINCIPAL.tenant
    assert not ticket.holds


async def test_a_node_that_may_not_see_the_prompt_is_not_asked(node: Node, counter: TokenCounter) -> None:
    unlawful = [at(node, "us/va"), at(node, None), at(node, "ch")]
    assert await counter.count(QUESTION, request(), unlawful, [EU]) == ()
    assert node.tickets == []
    assert Jurisdictions().place("eu/de").within >= {"eu"}


async def test_every_deployment_is_asked_at_once(node: Node, counter: TokenCounter) -> None:
    node.may_answer.clear()
    counting = asyncio.create_task(counter.count(QUESTION, request(), [at(node), at(node, deployment="e")], [EU]))
    async with asyncio.timeout(10):
        while len(node.tickets) < 2:
            await asyncio.sleep(0)
    node.may_answer.set()
    assert await counting == (("d", 7), ("e", 7))


async def test_a_node_that_fails_counts_nothing(node: Node, counter: TokenCounter) -> None:
    node.fails = True
    assert await counter.count(QUESTION, request(), [at(node)], [EU]) == ()


async def test_a_node_that_is_gone_counts_nothing(counter: TokenCounter) -> None:
    gone = replace(replica(), node_address="127.0.0.1:1")
    assert await counter.count(QUESTION, request(), [gone], [EU]) == ()


async def test_an_answer_that_takes_too_long_is_not_waited_for(node: Node) -> None:
    node.may_answer.clear()
    hurried = TokenCounter("router-0", timeout_s=0.05)
    assert await hurried.count(QUESTION, request(), [at(node)], [EU]) == ()
    await hurried.stop()


async def test_connections_to_nodes_that_have_left_are_closed(node: Node, counter: TokenCounter) -> None:
    await counter.count(QUESTION, request(), [at(node)], [EU])
    counter.keep(frozenset())
    assert await counter.count(QUESTION, request(), [at(node)], [EU]) == (("d", 7),)
