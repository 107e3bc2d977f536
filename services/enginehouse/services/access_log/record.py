"""One line of Envoy's access log, whichever way it came."""

from dataclasses import dataclass

from enginehouse.v1 import common_pb2, router_pb2


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """How one request passed through Envoy.

    Attributes:
        request_id: made by Envoy, always there.
        router: id of the router that decided. Empty: none answered the check.
        ticket: the router's own words about the request. None: it was refused, or never decided.
        address: host:port that answered. Empty: none was reached.
        replica: the replica that answered, when the adapter names it.
        http_status: 0 when the client left before one.
        grpc_status: google.rpc.Code; None for HTTP answers.
        usage: tokens as the engine or adapter counted them; None when the log has no count.
        client_left: the client closed before the end.
        upstream_broke: the engine or node closed before the end.
        started_ms, ended_ms: Unix milliseconds.
    """

    request_id: str
    router: str
    ticket: router_pb2.Ticket | None
    address: str
    replica: str
    http_status: int
    grpc_status: int | None
    usage: common_pb2.Usage | None
    client_left: bool
    upstream_broke: bool
    started_ms: int
    ended_ms: int
