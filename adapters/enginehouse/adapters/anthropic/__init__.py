"""The Anthropic Messages dialect of clients."""

from enginehouse.adapters.anthropic.encode import encode_message, encode_token_count
from enginehouse.adapters.anthropic.errors import encode_error, encode_stream_error
from enginehouse.adapters.anthropic.inspection import inspect
from enginehouse.adapters.anthropic.parse import parse_count_tokens, parse_messages
from enginehouse.adapters.anthropic.stream import StreamEncoder

__all__ = [
    "StreamEncoder",
    "encode_error",
    "encode_message",
    "encode_stream_error",
    "encode_token_count",
    "inspect",
    "parse_count_tokens",
    "parse_messages",
]
