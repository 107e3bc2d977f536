"""Asks nodes for exact token counts. The prompt's text leaves the router here, so only lawful nodes are asked."""

import asyncio
from collections.abc import Sequence

import grpc
import structlog

from enginehouse.router import Replica, Request, Residency
from enginehouse.router.record import principal_to_message, residency_to_messages
from enginehouse.services.access_log import ticket_text
from enginehouse.services.background import Background
from enginehouse.services.server import channel
from enginehouse.v1 import common_pb2, inference_pb2, inference_pb2_grpc, router_pb2

_log = structlog.get_logger(__name__)
TIMEOUT_S = 0.4
COUNTS_MAX = 32
"""Questions that may be open at once; what comes on top is not counted."""
TICKET_METADATA = "x-enginehouse-internal-ticket"


class TokenCounter:
    """Counts with each deployment's own tokenizer, at one of its nodes.

    Args:
        router: this router's id, for the nodes' tickets.
        timeout_s: for an answer. A count that takes longer is as good as none.
    """

    def __init__(self, router: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._router = router
        self._timeout_s = timeout_s
        self._open = 0
        self._background = Background()
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def count(
        self,
        question: inference_pb2.CountTokensRequest,
        request: Request,
        replicas: Sequence[Replica],
        residency: Sequence[Residency],
    ) -> tuple[tuple[str, int], ...]:
        """The prompt's tokens by deployment, for those that answer in time.

        Args:
            question: the prompt.
            request: whose prompt it is.
            replicas: whom to ask. Only those are asked whose place every rule permits.
            residency: the rules of the request. Nodes check them again.
        """
        lawful = [
            replica
            for replica in replicas
            if replica.place is not None and all(rule.permits(replica.place) for rule in residency)
        ][: max(0, COUNTS_MAX - self._open)]
        answers = await asyncio.gather(*(self._ask(question, request, replica, residency) for replica in lawful))
        return tuple(
            (replica.deployment, tokens)
            for replica, tokens in zip(lawful, answers, strict=True)
            if tokens is not None and tokens > 0
        )

    async def stop(self) -> None:
        """Closes the connections to the nodes."""
        await self._background.stop()
        for one in self._channels.values():
            await one.close()
        self._channels.clear()

    def keep(self, addresses: frozenset[str]) -> None:
        """Closes the connections to nodes that are at none of these addresses any more, once they have answered."""
        for address in self._channels.keys() - addresses:
            leaving = self._channels.pop(address)
            self._background.start(leaving.close(grace=2 * self._timeout_s), f"close the connection to {address}")

    async def _ask(
        self,
        question: inference_pb2.CountTokensRequest,
        request: Request,
        replica: Replica,
        residency: Sequence[Residency],
    ) -> int | None:
        self._open += 1
        try:
            answer = await inference_pb2_grpc.InferenceServiceStub(self._channel(replica.node_address)).CountTokens(
                question,
                timeout=self._timeout_s,
                metadata=((TICKET_METADATA, ticket_text(self._ticket(request, replica, residency))),),
            )
        except grpc.aio.AioRpcError as error:
            _log.debug("not counted", request_id=request.id, replica=replica.id, code=error.code().name)
            return None
        finally:
            self._open -= 1
        return answer.input_tokens

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = channel(address)
        return self._channels[address]

    def _ticket(self, request: Request, replica: Replica, residency: Sequence[Residency]) -> router_pb2.Ticket:
        """What lets the question in at the node. It holds nothing, so nothing is settled."""
        attempt = router_pb2.Attempt(
            replica=replica.id,
            address=replica.node_address,
            served_model=replica.served_model,
            place=replica.place.label if replica.place else "",
            deployment=replica.deployment,
        )
        return router_pb2.Ticket(
            request_id=request.id,
            router=self._router,
            lane=common_pb2.LANE_ADAPTER,
            attempts=[attempt],
            residency=residency_to_messages(residency),
            principal=principal_to_message(request.principal),
            operation=common_pb2.OPERATION_COUNT_TOKENS,
            dialect=common_pb2.DIALECT_GRPC,
            requested_model=request.model,
        )
