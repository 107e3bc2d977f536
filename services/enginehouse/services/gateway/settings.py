"""What a gateway is told: addresses, bounds, folders."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from enginehouse.contract import RequestError

# Half of it is one attempt's time, which must be longer than the pause before the next.
_CHECK_TIMEOUT_MS_MIN = 50
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``host:port``; an IPv6 address stands in brackets.

        Raises:
            RequestError: it is not of that form.
        """
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or "/" in host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise RequestError(f"{text!r} is not an address: write host:port, for example 127.0.0.1:8080")
        return cls(host, int(port))

    @property
    def is_ip(self) -> bool:
        """Whether the host needs no name resolution."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RouterEndpoint:
    """One router: its id, as it answers it in ``x-md-router``, and where its two servers listen, on one host."""

    id: str
    http: Address
    grpc: Address


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Everything a gateway needs to know.

    Args:
        id: names the gateway in its starts' ids; lower case letters, digits and dashes.
        listen: where clients connect.
        admin_port: Envoy's own admin server, on loopback.
        state_folder: configuration, output and access logs are kept here; one gateway uses it at a time.
        routers: every router; the first also gets the access-log entries that no router owns.
        control: control's gRPC server: the admin API for clients, the ledger for the access log.
        envoy: the Envoy program. None: found by `find_envoy`.
        request_body_bytes_max: larger bodies, after decompression, are answered 413.
        response_body_bytes_max: a longer JSON answer of the direct lane (streams do not count) is answered 500.
        longest_request_s: Envoy ends every request after this many seconds; the ledger counts on it.
        stream_idle_s: a request during which nothing moves for so long is ended; the wait for the first token counts.
        check_timeout_ms: how long a check may take, its one retry on another router included.
        otlp_endpoint: gRPC endpoint of an OpenTelemetry collector. None: no traces.
        concurrency: Envoy's worker threads.
        drain_grace_s: how long a stop waits for requests in flight.
        access_log_segment_bytes: size at which the access log is rotated.
        access_log_segments_kept: how many shipped files are kept for a look.
    """

    id: str
    listen: Address
    admin_port: int
    state_folder: Path
    routers: tuple[RouterEndpoint, ...]
    control: Address
    envoy: Path | None = None
    request_body_bytes_max: int = 1024 * 1024
    response_body_bytes_max: int = 32 * 1024 * 1024
    longest_request_s: int = 600
    stream_idle_s: int = 300
    check_timeout_ms: int = 2000
    otlp_endpoint: Address | None = None
    concurrency: int = 2
    drain_grace_s: float = 30.0
    access_log_segment_bytes: int = 64 * 1024 * 1024
    access_log_segments_kept: int = 4

    def __post_init__(self) -> None:
        """Raises RequestError for values that Envoy would choke on, or silently take as something else."""
        if not self.routers:
            raise RequestError(f"gateway {self.id!r} has no routers: name at least one")
        ids = [router.id for router in self.routers]
        for name in (self.id, *ids):
            if not _ID.fullmatch(name):
                raise RequestError(f"{name!r} is no id: use 1 to 63 of a-z, 0-9 and '-', not '-' at an end")
        if len(set(ids)) != len(ids):
            raise RequestError(f"router ids must differ, but are {', '.join(ids)}")
        bounds = {
            "request_body_bytes_max": (self.request_body_bytes_max, 1),
            "response_body_bytes_max": (self.response_body_bytes_max, 1),
            "longest_request_s": (self.longest_request_s, 1),
            "stream_idle_s": (self.stream_idle_s, 1),
            "check_timeout_ms": (self.check_timeout_ms, _CHECK_TIMEOUT_MS_MIN),
            "concurrency": (self.concurrency, 1),
            "access_log_segment_bytes": (self.access_log_segment_bytes, 1),
            "access_log_segments_kept": (self.access_log_segments_kept, 1),
        }
        for name, (value, least) in bounds.items():
            if value < least:
                raise RequestError(f"{name} is {value}: it must be at least {least}")
