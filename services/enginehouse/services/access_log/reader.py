"""Reads Envoy's access log, from its gRPC entries and from its file alike.

Both are configured in deploy/envoy/: the names of the metadata, the trailers and the JSON keys are fixed there.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime

from google.protobuf.message import DecodeError

from enginehouse.services.access_log.record import AccessRecord
from enginehouse.v1 import common_pb2, envoy_access_log_pb2, router_pb2

_AUTHORIZER = "envoy.filters.http.ext_authz"
_USAGE = "enginehouse.usage"
# Envoy's short names of response flags (docs: access log command operators, 1.40).
_CLIENT_LEFT = frozenset({"DC", "DR"})
_UPSTREAM_BROKE = frozenset({"UC", "UR", "UPE", "UT", "SI", "DT", "UMSDR", "LR"})

Metadata = Mapping[str, object]


def read_entry(entry: envoy_access_log_pb2.AccessLogEntry) -> AccessRecord:
    """Reads an entry of the gRPC access log.

    Raises:
        ValueError: its ticket cannot be read.
    """
    common, response = entry.common_properties, entry.response
    flags = common.response_flags
    authorizer = dict(common.metadata.filter_metadata[_AUTHORIZER].items())
    client_left = flags.downstream_connection_termination or flags.downstream_remote_reset
    upstream_broke = (
        flags.upstream_connection_termination
        or flags.upstream_remote_reset
        or flags.upstream_protocol_error
        or flags.upstream_request_timeout
        or flags.stream_idle_timeout
        or flags.upstream_max_stream_duration_reached
        or flags.duration_timeout
        or flags.local_reset
    )
    trailers = response.response_trailers
    seen = dict(common.metadata.filter_metadata[_USAGE].items())
    ticket = _ticket(_text(authorizer, "x-md-ticket"))
    started_ms = common.start_time.ToMilliseconds()
    socket = common.upstream_remote_address.socket_address
    return AccessRecord(
        request_id=entry.request.request_id,
        router=_text(authorizer, "x-md-router"),
        ticket=ticket,
        address=f"{socket.address}:{socket.port_value}" if socket.port_value else "",
        replica=trailers.get("x-enginehouse-replica", ""),
        http_status=response.response_code.value,
        grpc_status=_whole(trailers.get("grpc-status")),
        usage=_usage(
            ticket,
            seen,
            trailers,
            is_cut=client_left or upstream_broke,
            is_unanswered=response.response_body_bytes == 0 and not client_left,
        ),
        client_left=client_left,
        upstream_broke=upstream_broke,
        started_ms=started_ms,
        ended_ms=started_ms + common.duration.ToMilliseconds(),
    )


def read_line(line: str) -> AccessRecord | None:
    """Reads a line of the access log file. None: a line that was cut off when Envoy died, or that is none of ours.

    Raises:
        ValueError: its ticket cannot be read, so it is not known what is owed.
    """
    try:
        fields = json.loads(line)
        request_id = fields["request_id"]
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(request_id, str):
        return None
    flags = frozenset(_text(fields, "response_flags").split(","))
    client_left, upstream_broke = bool(flags & _CLIENT_LEFT), bool(flags & _UPSTREAM_BROKE)
    ticket = _ticket(_text(fields, "ticket"))
    given = _mapping(fields.get("usage_trailers"))
    trailers = {f"x-usage-{name.replace('_', '-')}": str(value) for name, value in given.items() if value is not None}
    return AccessRecord(
        request_id=request_id,
        router=_text(fields, "router"),
        ticket=ticket,
        address=_text(fields, "upstream_host"),
        replica=_text(fields, "replica"),
        http_status=_whole(fields.get("response_code")) or 0,
        grpc_status=_whole(fields.get("grpc_status")),
        usage=_usage(
            ticket,
            _mapping(fields.get("usage")),
            trailers,
            is_cut=client_left or upstream_broke,
            is_unanswered=fields.get("bytes_sent") == 0 and not client_left,
        ),
        client_left=client_left,
        upstream_broke=upstream_broke,
        started_ms=_unix_ms(_text(fields, "start_time")),
        ended_ms=_unix_ms(_text(fields, "end_time")),
    )


def ticket_text(ticket: router_pb2.Ticket) -> str:
    """A ticket as headers and logs carry it: base64url without padding."""
    return base64.urlsafe_b64encode(ticket.SerializeToString()).decode().rstrip("=")


def ticket_from_text(text: str) -> router_pb2.Ticket:
    """Reads a ticket.

    Raises:
        ValueError: it is none.
    """
    try:
        return router_pb2.Ticket.FromString(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, DecodeError) as error:
        raise ValueError("not a ticket") from error


def _ticket(text: str) -> router_pb2.Ticket | None:
    return ticket_from_text(text) if text else None


def _usage(
    ticket: router_pb2.Ticket | None,
    seen: Metadata,
    trailers: Mapping[str, str],
    *,
    is_cut: bool,
    is_unanswered: bool,
) -> common_pb2.Usage | None:
    """The token counts, from the best source: trailers, then the engine's usage, then llama.cpp's timings.

    No tokens at all are no use: a node says so of a call that no engine has worked on. And a gRPC call that ended
    without a message was refused, under HTTP status 200 and with trailers that are headers then, which no log has.
    """
    method = common_pb2.USAGE_METHOD_ENGINE_PARTIAL if is_cut else common_pb2.USAGE_METHOD_ENGINE
    if "x-usage-output" in trailers or "x-usage-input" in trailers:
        counts = [_whole(trailers.get(f"x-usage-{name}")) or 0 for name in ("input", "cached-input", "output")]
        if not any(counts):
            return common_pb2.Usage(method=common_pb2.USAGE_METHOD_NONE)
    elif "input" in seen or "output" in seen:
        counts = [_whole(seen.get(name)) or 0 for name in ("input", "cached_input", "output")]
        if ticket is not None and ticket.dialect == common_pb2.DIALECT_ANTHROPIC:
            counts[0] += counts[1]  # there `input_tokens` leaves out what a cache served
    elif "timing_output" in seen:
        prompt, cached, output = (_whole(seen.get(f"timing_{name}")) or 0 for name in ("prompt", "cached", "output"))
        counts = [prompt + cached, cached, output]
    elif is_unanswered and ticket is not None and ticket.dialect == common_pb2.DIALECT_GRPC:
        return common_pb2.Usage(method=common_pb2.USAGE_METHOD_NONE)
    else:
        return None
    return common_pb2.Usage(
        input_tokens=counts[0], cached_input_tokens=counts[1], output_tokens=counts[2], method=method
    )


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return int(float(value))
    except ValueError:
        return None


def _text(fields: Metadata, key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) and value != "-" else ""


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _unix_ms(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return 0
