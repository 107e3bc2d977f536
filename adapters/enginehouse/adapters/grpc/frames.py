"""The five bytes before every gRPC message, and its compression."""

import struct
import zlib

from enginehouse.contract import Reason, RequestError

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
_PREFIX = struct.Struct(">BI")
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way to say: with a gzip header
_IDENTITY, _COMPRESSED = 0, 1


def unframe(body: bytes, encoding: str = "gzip", *, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """The message in a body of exactly one frame, as unary and server-streaming calls send it.

    Args:
        body: prefix and message (gRPC over HTTP/2, "Length-Prefixed-Message").
        encoding: the header `grpc-encoding`, for a frame whose first byte says that it is compressed.
        bytes_max: bytes of the decompressed message.

    Raises:
        RequestError: the frame is cut, followed by more, compressed in a way that is not gzip, or too large.
    """
    if len(body) < _PREFIX.size:
        raise RequestError(f"the gRPC frame is {len(body)} bytes; expected at least {_PREFIX.size}")
    flag, length = _PREFIX.unpack_from(body)
    message = body[_PREFIX.size :]
    if length != len(message):
        raise RequestError(
            f"the gRPC frame announces {length} bytes and has {len(message)}; expected one whole message"
        )
    if flag == _IDENTITY:
        return _within(message, bytes_max)
    if flag != _COMPRESSED or encoding != "gzip":
        raise RequestError(f"the gRPC frame has flag {flag} and encoding {encoding[:20]!r}; expected gzip or none")
    return _decompressed(message, bytes_max)


def frame(message: bytes) -> bytes:
    """`message` behind its prefix, not compressed."""
    return _PREFIX.pack(_IDENTITY, len(message)) + message


def _decompressed(message: bytes, bytes_max: int) -> bytes:
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    try:
        plain = inflater.decompress(message, bytes_max + 1)
    except zlib.error:
        raise RequestError("the gRPC message is marked as gzip and is not; send it whole or not compressed") from None
    if len(plain) <= bytes_max and not inflater.eof:
        raise RequestError("the gzip data of the gRPC message is cut short")
    return _within(plain, bytes_max)


def _within(message: bytes, bytes_max: int) -> bytes:
    if len(message) > bytes_max:
        raise RequestError(f"the gRPC message is over {bytes_max} bytes decompressed", Reason.REQUEST_TOO_LARGE)
    return message
