"""The simulated nodes and their engines: what they work on is what is true."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import grpc

from enginehouse.router import Replica
from enginehouse.v1 import common_pb2, router_pb2
from tests.simulation.control import SETTINGS
from tests.simulation.loop import VirtualLoop, exponential_s
from tests.simulation.network import Network
from tests.simulation.scene import ADAPTER, input_tokens_most
from tests.simulation.truth import Truth, Work

_REPORT_TIMEOUT_S = 1.0
_REPORTS_MAX = 3


class Engines:
    """Every replica, up or down.

    Args:
        served: is told of each request that a replica begins to work on.
    """

    def __init__(
        self,
        replicas: tuple[Replica, ...],
        loop: VirtualLoop,
        network: Network,
        rng: random.Random,
        truth: Truth,
        served: Callable[[Work, Replica], None],
    ) -> None:
        self.replicas = {replica.id: replica for replica in replicas}
        self.prices = {replica.id: replica.price for replica in replicas if replica.price}
        self.down: set[str] = set()
        self._loop = loop
        self._network = network
        self._rng = rng
        self._truth = truth
        self._served = served
        self._ends: dict[str, asyncio.Future[None]] = {}
        self._stories: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, tuple[float, float, int]] = {}

    def accepts(self, attempt: router_pb2.Attempt, ticket: router_pb2.Ticket) -> bool:
        """Whether a connection is not refused. A node, which the adapter lane passes, checks the place once more."""
        replica = self.replicas[attempt.replica]
        return replica.node not in self.down

    async def run(self, work: Work, attempt: router_pb2.Attempt) -> None:
        """Works on a request until it ends, one way or another."""
        ticket, rng = work.ticket, self._rng
        work.replica = attempt.replica
        most = input_tokens_most(self.replicas[attempt.replica], work.request)
        work.input_tokens = rng.randint(1, most)
        output = rng.randint(0, ticket.output_tokens_max * max(1, ticket.choices))
        if rng.random() < 0.1:
            work.input_tokens, output = most, ticket.output_tokens_max * max(1, ticket.choices)
        duration_s = min(exponential_s(rng, rng.choice((0.1, 0.5, 2.0, 30.0))), SETTINGS.longest_request_s - 0.01)
        work.is_running = True
        self._begun[work.request.id] = (self._loop.now_s, duration_s, output)
        self._served(work, self.replicas[attempt.replica])
        ended = self._ends[work.request.id] = self._loop.create_future()
        client_leaves = rng.random() < 0.15
        if client_leaves:
            duration_s *= rng.random()
        try:
            async with asyncio.timeout(duration_s):
                await ended
        except TimeoutError:
            self.cut(work)
            self._stories[work.request.id] = self._told(work, is_cut=client_leaves)
        else:
            self._stories[work.request.id] = self._told(work, is_cut=True)

    def cut(self, work: Work) -> None:
        """Stops working on a request: what was generated so far was used."""
        begun_s, duration_s, output = self._begun.pop(work.request.id)
        part = min(1.0, (self._loop.now_s - begun_s) / duration_s) if duration_s else 1.0
        work.output_tokens = round(output * part)
        work.is_running = False
        ended = self._ends.pop(work.request.id)
        if not ended.done():
            ended.set_result(None)

    def kill_node(self, node: str) -> None:
        """Kills a node with its engines."""
        self.down.add(node)
        for work in list(self._truth.running()):
            if self.replicas[work.replica].node == node:
                self.cut(work)

    def story(self, work: Work) -> dict[str, Any]:
        """What Envoy's log says of the work."""
        return self._stories.get(work.request.id, {})

    def report(self, work: Work) -> None:
        """A node tells the router that decided what a request used, a few times."""
        if self._rng.random() < 0.5 or not work.is_counted:
            self._loop.create_task(self._report(work))

    async def _report(self, work: Work) -> None:
        replica = self.replicas[work.replica]
        usage = common_pb2.Usage(
            input_tokens=work.input_tokens,
            output_tokens=work.output_tokens,
            method=common_pb2.USAGE_METHOD_ENGINE_PARTIAL,
        )
        report = router_pb2.SettleRequest(ticket=work.ticket, replica=work.replica, usage=usage)
        for _ in range(_REPORTS_MAX):
            if replica.node in self.down:
                return
            try:
                await self._network.call(replica.node, work.ticket.router, "Settle", report, _REPORT_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(_REPORT_TIMEOUT_S)
            else:
                return

    def _told(self, work: Work, *, is_cut: bool) -> dict[str, Any]:
        story: dict[str, Any] = {"response_flags": self._rng.choice(("DC", "UC")) if is_cut else "-"}
        work.is_counted = not is_cut or self._rng.random() < 0.5
        if work.ticket.lane == ADAPTER:
            story["replica"] = work.replica if not is_cut else "-"
        if work.is_counted:
            story["usage"] = {"input": work.input_tokens, "output": work.output_tokens}
        return story
