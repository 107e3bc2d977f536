"""Server-sent events: read piece by piece as bytes arrive, and written."""

import re
from dataclasses import dataclass

from enginehouse.contract import EngineError, Reason

EVENT_BYTES_MAX = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DEFAULT_NAME = "message"
_NAME_OF_ERROR = "error"
_EMPTY_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_EMPTY_LINE_BYTES_MAX = 4


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event. `name` is "message" unless the stream names it."""

    data: str
    name: str = _DEFAULT_NAME


class SseParser:
    """Reads events out of a stream that may be cut anywhere (HTML standard, "Parsing an event stream").

    The field ``error:``, which that standard does not know, is read as an event of that name: llama.cpp wrote its
    errors so until September 2025 (ggml-org/llama.cpp pull request 16109).

    Args:
        event_bytes_max: bytes of one event, or of one line that has not ended.
    """

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._line = bytearray()  # the beginning of a line whose end has not come
        self._data: list[bytes] = []
        self._name = ""
        self._event_bytes = 0
        self._at_start = True
        self._after_return = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Takes the next bytes and returns the events that they complete.

        Raises:
            EngineError: an event is larger than the bound.
        """
        if self._after_return and chunk:
            self._after_return = False
            chunk = chunk.removeprefix(b"\n")  # the second half of a line end that was cut in two
        self._line += chunk
        events = self._take_lines() if b"\n" in chunk or b"\r" in chunk else []
        self._check(len(self._line))
        return events

    def _take_lines(self) -> list[SseEvent]:
        lines = bytes(self._line).splitlines(keepends=True)
        self._line.clear()
        if not lines[-1].endswith((b"\n", b"\r")):
            self._line += lines.pop()
        self._after_return = not self._line and lines[-1].endswith(b"\r")
        events = [self._take_line(line.rstrip(b"\r\n")) for line in lines]
        return [event for event in events if event]

    def _take_line(self, line: bytes) -> SseEvent | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field:  # comments are not kept
            self._event_bytes += len(line)
            self._check(0)
        match field:
            case b"data":
                self._data.append(value)
            case b"event":
                self._name = value.decode(errors="replace")
            case b"error":
                self._data.append(value)
                self._name = _NAME_OF_ERROR
            case _:  # a comment (an empty field name), an id, a retry, or nothing that we know
                pass
        return None

    def _dispatch(self) -> SseEvent | None:
        data, name = self._data, self._name
        self._data, self._name, self._event_bytes = [], "", 0
        if not data:
            return None
        return SseEvent(b"\n".join(data).decode(errors="replace"), name or _DEFAULT_NAME)

    def _check(self, more_bytes: int) -> None:
        if self._event_bytes + more_bytes > self._event_bytes_max:
            raise _too_large(self._event_bytes_max)


class EventCutter:
    """Cuts a stream into its events, byte for byte, for one that is passed on as it is.

    Args:
        event_bytes_max: bytes of one event, comments included.
    """

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """What came after the last event and is none: no empty line ended it."""
        return self._rest

    def feed(self, chunk: bytes) -> list[bytes]:
        """Takes the next bytes and returns the events that they complete, each with the empty line at its end.

        Raises:
            EngineError: an event is larger than the bound.
        """
        known = len(self._rest)
        self._rest += chunk
        events, start = [], 0
        for match in _EMPTY_LINE.finditer(self._rest, max(0, known - _EMPTY_LINE_BYTES_MAX)):
            events.append(self._rest[start : match.end()])
            start = match.end()
        self._rest = self._rest[start:]
        if any(len(piece) > self._event_bytes_max for piece in (*events, self._rest)):
            raise _too_large(self._event_bytes_max)
        return events


def _too_large(event_bytes_max: int) -> EngineError:
    return EngineError(f"the engine sent an event of more than {event_bytes_max} bytes", Reason.ENGINE_FAILED)


def encode_event(data: bytes, name: str = "") -> bytes:
    """One event; `data` holds no line end."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n" if name else b"data: " + data + b"\n\n"
