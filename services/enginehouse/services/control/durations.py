"""Protobuf's times and ours: Unix milliseconds and milliseconds."""

from google.protobuf import duration_pb2, timestamp_pb2


def timestamp_of_ms(unix_ms: int) -> timestamp_pb2.Timestamp:
    """Unix milliseconds as a timestamp."""
    seconds, rest_ms = divmod(unix_ms, 1000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest_ms * 1_000_000)


def ms_of_timestamp(timestamp: timestamp_pb2.Timestamp) -> int:
    """A timestamp as Unix milliseconds, rounded down."""
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000


def duration_of_ms(length_ms: int) -> duration_pb2.Duration:
    """Milliseconds as a duration; 0 when they are negative."""
    seconds, rest_ms = divmod(max(0, length_ms), 1000)
    return duration_pb2.Duration(seconds=seconds, nanos=rest_ms * 1_000_000)


def ms_of_duration(duration: duration_pb2.Duration) -> int:
    """A duration as milliseconds, rounded down."""
    return duration.seconds * 1000 + duration.nanos // 1_000_000


def shorten(duration: duration_pb2.Duration, length_ms: int) -> None:
    """Takes milliseconds off a duration in place, down to 0."""
    duration.CopyFrom(duration_of_ms(ms_of_duration(duration) - length_ms))
