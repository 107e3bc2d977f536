"""Settings of gRPC connections that both ends must agree on."""

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
METADATA_BYTES_MAX = 64 * 1024
_KEEPALIVE_MS = 30_000
_KEEPALIVE_TIMEOUT_MS = 10_000
_PING_INTERVAL_MS_MIN = 10_000

_BOTH_ENDS = [
    # 4 MiB by default, less than one image in a request
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # 8 KiB by default; a ticket with its attempts travels as a header
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    # pings are how a stream notices a dead peer, and a stream may be silent for long
    ("grpc.http2.max_pings_without_data", 0),
]

SERVER_OPTIONS: list[tuple[str, int]] = [
    *_BOTH_ENDS,
    ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_MS_MIN),
    # on by default, and then a second server on the same port takes half of the connections without a word
    ("grpc.so_reuseport", 0),
]

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    *_BOTH_ENDS,
    # peers are ours; a proxy from the environment is for the outside world
    ("grpc.enable_http_proxy", 0),
    # up to two minutes by default, which a restarted process would be missed for
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 3_000),
]
