"""Server-sent events: read piece by piece as bytes arrive, and written."""

from dataclasses import dataclass

from enginehouse.contract import EngineError, Reason

EVENT_BYTES_MAX = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DEFAULT_NAME = "message"
_NAME_OF_ERROR = "error"


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
            message = f"the engine sent an event of more than {self._event_bytes_max} bytes"
            raise EngineError(message, Reason.ENGINE_FAILED)


def encode_event(data: bytes, name: str = "") -> bytes:
    """One event; `data` holds no line end."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n" if name else b"data: " + data + b"\n\n"
