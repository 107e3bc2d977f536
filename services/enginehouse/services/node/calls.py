"""One call in the adapter lane: from the router's ticket to a replica of this node, and back to the router's ledger."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import aiohttp
import grpc
import structlog
from opentelemetry.trace import SpanKind

from enginehouse.adapters.engine import EngineClient
from enginehouse.contract import EngineError, EnginehouseError, PolicyRefusal, Reason, RequestError
from enginehouse.engines import DRAINING, SERVING
from enginehouse.router import Jurisdictions
from enginehouse.router.record import residency_from_messages
from enginehouse.services.access_log import ticket_from_text
from enginehouse.services.background import Background
from enginehouse.services.node.engine_clients import HeldClients
from enginehouse.services.node.replicas import Held, NodeReplicas
from enginehouse.services.server import channel
from enginehouse.services.telemetry import Measures, carried, operation_span
from enginehouse.v1 import common_pb2, node_pb2, router_pb2, router_pb2_grpc

_log = structlog.get_logger(__name__)
TICKET_METADATA = "x-enginehouse-internal-ticket"
_REQUEST_ID_METADATA = "x-request-id"
_PASSED_ON = ("x-request-id", "traceparent", "tracestate")
_REPORT_TIMEOUT_S = 2.0
_REPORT_TRIES = 60
"""So that a router which was killed has the time to come back."""
_REPORT_RETRY_S = 0.5

AnyContext: TypeAlias = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True)
class Call:
    """A call that was let in.

    Attributes:
        ticket: the router's words about it.
        attempt: the replica of this node that it goes to.
        replica: that replica, as it is now.
        client: speaks to that replica's engine.
        headers: to send along to the engine.
        usage: what was used, as far as it is known; to be set by whoever serves the call.
        is_whole: whether the client got all of the answer; likewise.
        has_sent: whether a piece of the answer has gone out.
        engine_failed: the engine broke off.
        is_left_to_next: it did before that, and another replica may serve it.
    """

    ticket: router_pb2.Ticket
    attempt: router_pb2.Attempt
    replica: node_pb2.Replica
    client: EngineClient
    headers: Mapping[str, str]
    usage: common_pb2.Usage = field(default_factory=lambda: common_pb2.Usage(method=common_pb2.USAGE_METHOD_NONE))
    is_whole: bool = False
    has_sent: bool = False
    is_left_to_next: bool = False
    engine_failed: bool = False
    first_token_s: float | None = None

    def generated(self) -> None:
        """Notes that a piece of the answer is there."""
        if self.first_token_s is None:
            self.first_token_s = time.monotonic()

    @contextmanager
    def unknown_usage(self) -> Iterator[None]:
        """What is used within is not known until the engine answers; where it fails, it has done nothing of use."""
        self.usage = common_pb2.Usage(method=common_pb2.USAGE_METHOD_UPPER_BOUND)
        try:
            yield
        except EnginehouseError:
            self.usage = common_pb2.Usage(method=common_pb2.USAGE_METHOD_NONE)
            raise

    def sends(self) -> None:
        """Notes that a piece of the answer is there and goes out: from now on nobody else can serve the call."""
        self.generated()
        self.has_sent = True


class Calls:
    """Lets calls in, and sees to it that each is settled.

    Args:
        place: this node's label; it decides once more whether it may see the data.
        jurisdictions: reads it.
        replicas: what runs here.
        session: for the engines.
    """

    def __init__(
        self, *, place: str, jurisdictions: Jurisdictions, replicas: NodeReplicas, session: aiohttp.ClientSession
    ) -> None:
        self._place = jurisdictions.place_or_nowhere(place)
        self._replicas = replicas
        self._clients = HeldClients(session, lambda replica_id: replicas.get(replica_id) is not None)
        self._background = Background()
        self._measures = Measures()
        self._routers: dict[str, grpc.aio.Channel] = {}

    async def stop(self) -> None:
        """Ends reports that are still on their way."""
        await self._background.stop()
        await self._clients.aclose()
        for one in self._routers.values():
            await one.close()

    @asynccontextmanager
    async def call(self, context: AnyContext) -> AsyncIterator[Call]:
        """Lets a call in and, at its end, says what it used: in the trailers, and to the router if those may be lost.

        Raises:
            RequestError: there is no ticket, so the call did not come through a router (PERMISSION_DENIED).
            PolicyRefusal: this node is not where the data may be (RESIDENCY_REFUSED_BY_NODE).
            EngineError: none of the ticket's replicas is ready here; Envoy tries the next node.
        """
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        ticket = _ticket(metadata)
        self._check_place(ticket)
        attempt, held = self._choose(ticket)
        replica = held.supervisor.snapshot()
        headers = {name: metadata[name] for name in _PASSED_ON if name in metadata}
        with (
            operation_span(ticket.operation, ticket.requested_model, headers=metadata, kind=SpanKind.SERVER),
            held.one_more_in_flight(),  # before anything is awaited: a replica that leaves waits for its calls
        ):
            client = await self._clients.get(replica, held.supervisor.spec.settings.api)
            call = Call(ticket, attempt, replica, client, {**headers, **carried()})
            started_s = time.monotonic()
            try:
                yield call
            except EngineError:
                # Before the first byte Envoy may try the next replica, which then says what was used.
                call.engine_failed, call.is_left_to_next = True, not call.has_sent
                raise
            finally:
                self._end(call, context, started_s)

    def _check_place(self, ticket: router_pb2.Ticket) -> None:
        if self._place is None:
            raise _refused("this node has no place, so no data may be sent to it")
        for rule in residency_from_messages(ticket.residency):
            if not rule.permits(self._place):
                raise _refused(f"this node is in {self._place.label}, where this data may not be; the rule is: {rule}")

    def _choose(self, ticket: router_pb2.Ticket) -> tuple[router_pb2.Attempt, Held]:
        known = [(attempt, held) for attempt in ticket.attempts if (held := self._replicas.get(attempt.replica))]
        for attempt, held in known:
            if held.supervisor.state in SERVING:
                return attempt, held
        for attempt, held in known:
            # The router decided before it heard, and the engine serves until its last request has ended.
            if held.has_served and held.supervisor.state == DRAINING:
                return attempt, held
        raise EngineError("no replica of this request is ready on this node", Reason.NO_REPLICA_AVAILABLE)

    def _end(self, call: Call, context: AnyContext, started_s: float) -> None:
        usage = call.usage
        context.set_trailing_metadata(
            (
                *(context.trailing_metadata() or ()),
                ("x-usage-input", str(usage.input_tokens)),
                ("x-usage-cached-input", str(usage.cached_input_tokens)),
                ("x-usage-output", str(usage.output_tokens)),
                ("x-enginehouse-replica", call.attempt.replica),
            )
            if usage.method != common_pb2.USAGE_METHOD_UPPER_BOUND
            else ()
        )
        self._measures.used(call.ticket.operation, call.ticket.requested_model, usage)
        self._measures.took(
            call.ticket.operation,
            call.ticket.requested_model,
            duration_s=time.monotonic() - started_s,
            first_token_s=call.first_token_s - started_s if call.first_token_s is not None else None,
        )
        if not call.is_whole and not call.is_left_to_next:
            self._background.start(self._report(call), f"report {call.ticket.request_id}")

    async def _report(self, call: Call) -> None:
        """Tells the router what a call used that did not end as it should, so that nobody has to guess."""
        request = router_pb2.SettleRequest(
            ticket=call.ticket, replica=call.attempt.replica, usage=call.usage, engine_failed=call.engine_failed
        )
        stub = router_pb2_grpc.RouterServiceStub(self._router(call.ticket.router_address))
        for _ in range(_REPORT_TRIES):
            try:
                await stub.Settle(request, timeout=_REPORT_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                _log.debug("report not taken yet", request_id=call.ticket.request_id, code=error.code().name)
                await asyncio.sleep(_REPORT_RETRY_S)
            else:
                return
        _log.warning("no router took the report; the log's entry stands", request_id=call.ticket.request_id)

    def _router(self, address: str) -> grpc.aio.Channel:
        if address not in self._routers:
            self._routers[address] = channel(address)
        return self._routers[address]


def request_id_of(context: AnyContext) -> str:
    """Envoy's id of the request."""
    for key, value in context.invocation_metadata() or ():
        if key == _REQUEST_ID_METADATA and isinstance(value, str):
            return value
    return ""


def initial_metadata(status: int, headers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What tells Envoy to answer with another status than 200."""
    return (("x-http-status", str(status)), *((name, value) for name, value in headers if name != "content-type"))


def _ticket(metadata: Mapping[str, str]) -> router_pb2.Ticket:
    try:
        ticket = ticket_from_text(metadata[TICKET_METADATA])
    except (KeyError, ValueError):
        raise RequestError(
            "this call did not come through a router; send it to Envoy's port", Reason.PERMISSION_DENIED
        ) from None
    return ticket


def _refused(message: str) -> PolicyRefusal:
    return PolicyRefusal(message, Reason.RESIDENCY_REFUSED_BY_NODE, metadata={"rule": "residency"})
