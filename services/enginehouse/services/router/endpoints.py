"""Endpoint discovery for Envoy: which engines and which nodes there are.

Envoy only dials what the router names; this is where it learns that the named address exists.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable

import grpc
import structlog

from enginehouse.v1 import envoy_discovery_pb2 as discovery

CLUSTER_ENGINES = "engines"
CLUSTER_ADAPTERS = "adapters"
TYPE_URL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
METHOD = "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
_log = structlog.get_logger(__name__)

_Context = grpc.aio.ServicerContext[discovery.DiscoveryQuery, discovery.DiscoveryAnswer]


class _Subscription:
    """One cluster that one Envoy follows."""

    def __init__(self) -> None:
        self.nonces: dict[str, frozenset[str]] = {}
        self.sent: frozenset[str] | None = None
        self.acknowledged: frozenset[str] | None = None


class EndpointDiscovery:
    """Sends every Envoy that asks the whole set of a cluster, and again at every change.

    Until `begin` it says nothing: what a router does not know yet must not replace what Envoy knows from another.

    Args:
        on_published: called when an Envoy has taken in a set, because then more addresses may be used.
        on_envoy: called with the node id of every Envoy that connects.
        awaits_envoy: no other router could have told an Envoy of an address: none is published before one is told here.
    """

    def __init__(
        self,
        on_published: Callable[[], None],
        on_envoy: Callable[[str], None] | None = None,
        *,
        awaits_envoy: bool = False,
    ) -> None:
        self._on_published = on_published
        self._on_envoy = on_envoy
        self._has_begun = False
        self._sets: dict[str, frozenset[str]] = {CLUSTER_ENGINES: frozenset(), CLUSTER_ADAPTERS: frozenset()}
        self._awaited = set(self._sets) if awaits_envoy else set()
        self._changed: set[asyncio.Event] = set()
        self._streams: dict[int, dict[str, _Subscription]] = {}
        self._ids = itertools.count()

    def begin(self) -> None:
        """The sets are those of a router that knows its fleet: Envoys may have them."""
        if not self._has_begun:
            self._has_begun = True
            self._tell()

    def set_endpoints(self, cluster: str, addresses: Iterable[str]) -> None:
        """Makes "host:port" addresses the endpoints of a cluster."""
        new = frozenset(addresses)
        if new != self._sets[cluster]:
            self._sets[cluster] = new
            self._tell()

    def is_published(self, cluster: str, address: str) -> bool:
        """Whether every Envoy that follows this router's cluster knows an address of it.

        True when none does: they follow another router.
        """
        return cluster not in self._awaited and all(
            subscription.acknowledged is not None and address in subscription.acknowledged
            for subscriptions in self._streams.values()
            for name, subscription in subscriptions.items()
            if name == cluster
        )

    def stop_waiting(self) -> None:
        """No Envoy may ever come: then requests arrive by another way."""
        if self._awaited:
            self._awaited.clear()
            self._on_published()

    def handler(self) -> grpc.GenericRpcHandler:
        """The service under Envoy's own name."""
        service, method = METHOD.removeprefix("/").split("/")
        rpc = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery.DiscoveryQuery.FromString,
            response_serializer=discovery.DiscoveryAnswer.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(service, {method: rpc})

    def _tell(self) -> None:
        for event in self._changed:
            event.set()

    async def _stream(
        self,
        queries: AsyncIterator[discovery.DiscoveryQuery],
        context: _Context,
    ) -> AsyncIterator[discovery.DiscoveryAnswer]:
        stream, changed = next(self._ids), asyncio.Event()
        subscriptions = self._streams[stream] = {}
        self._changed.add(changed)
        reading = asyncio.create_task(self._read(queries, subscriptions, changed))
        numbers = itertools.count(1)
        try:
            while not reading.done():
                changed.clear()
                for cluster, subscription in list(subscriptions.items()):
                    addresses = self._sets[cluster]
                    if self._has_begun and addresses != subscription.sent:
                        nonce = f"{stream}.{next(numbers)}"
                        subscription.sent = subscription.nonces[nonce] = addresses
                        yield _answer(cluster, addresses, nonce)
                await changed.wait()
        finally:
            reading.cancel()
            self._changed.discard(changed)
            del self._streams[stream]
            self._on_published()

    async def _read(
        self,
        queries: AsyncIterator[discovery.DiscoveryQuery],
        subscriptions: dict[str, _Subscription],
        changed: asyncio.Event,
    ) -> None:
        try:
            async for query in queries:
                if query.node.id and self._on_envoy is not None:  # with the first query of a stream
                    self._on_envoy(query.node.id)
                for cluster in query.resource_names:
                    if cluster in self._sets:
                        self._acknowledge(cluster, subscriptions.setdefault(cluster, _Subscription()), query)
                changed.set()
        finally:
            changed.set()

    def _acknowledge(self, cluster: str, subscription: _Subscription, query: discovery.DiscoveryQuery) -> None:
        addresses = subscription.nonces.pop(query.response_nonce, None)
        if addresses is None:
            return
        if query.HasField("error_detail"):
            _log.error("envoy refused endpoints", error=query.error_detail.message)
            return
        subscription.acknowledged = addresses
        self._awaited.discard(cluster)
        self._on_published()


def _answer(cluster: str, addresses: Iterable[str], nonce: str) -> discovery.DiscoveryAnswer:
    members = []
    for address in sorted(addresses):
        host, _, port = address.rpartition(":")
        socket = discovery.EndpointSocketAddress(address=host.strip("[]"), port_value=int(port))
        endpoint = discovery.Endpoint(address=discovery.EndpointAddress(socket_address=socket))
        members.append(discovery.EndpointMember(endpoint=endpoint))
    assignment = discovery.EndpointAssignment(
        cluster_name=cluster, endpoints=[discovery.EndpointLocality(lb_endpoints=members)] if members else []
    )
    answer = discovery.DiscoveryAnswer(version_info=nonce, type_url=TYPE_URL, nonce=nonce)
    answer.resources.add(type_url=TYPE_URL, value=assignment.SerializeToString())
    return answer
