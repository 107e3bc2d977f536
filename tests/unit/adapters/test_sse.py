import pytest

from enginehouse.adapters import SseEvent, SseParser, encode_event
from enginehouse.contract import EngineError, Reason


def parsed(stream: bytes, event_bytes_max: int = 1000) -> list[SseEvent]:
    return SseParser(event_bytes_max=event_bytes_max).feed(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [SseEvent("a")]),
        (b"data:a\n\n", [SseEvent("a")]),
        (b"data:  a\r\n\r\n", [SseEvent(" a")]),
        (b"data: a\r\rdata: b\r\r", [SseEvent("a"), SseEvent("b")]),
        (b"data: a\ndata: b\n\n", [SseEvent("a\nb")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [SseEvent("a", "error"), SseEvent("b")]),
        (b": ping\n\n: keepalive\ndata: a\nid: 7\nretry: 5\n\n", [SseEvent("a")]),
        (b"event: lost\n\ndata: a\n\n", [SseEvent("a")]),
        (b"error: {}\n\n", [SseEvent("{}", "error")]),
        (b"\xef\xbb\xbfdata: a\n\n", [SseEvent("a")]),
        (b"data: caf\xc3\xa9\n\n", [SseEvent("café")]),
        (b"data: a\n", []),
        (b"data\n\n", [SseEvent("")]),
    ],
)
def test_a_stream_is_read_as_the_standard_says(stream: bytes, events: list[SseEvent]) -> None:
    assert parsed(stream) == events


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 1000 + b"\n\n", b"x" * 1001, b"data: " + b"x" * 995])
def test_an_event_larger_than_the_bound_is_an_error(stream: bytes) -> None:
    with pytest.raises(EngineError, match="more than 1000 bytes") as caught:
        parsed(stream)
    assert caught.value.reason is Reason.ENGINE_FAILED


def test_the_bound_counts_all_lines_of_an_event_and_begins_anew_with_the_next() -> None:
    parser = SseParser(event_bytes_max=100)
    for _ in range(10):
        assert parser.feed(b"data: " + b"x" * 60 + b"\n\n")
    parser.feed(b"data: " + b"x" * 60 + b"\n")
    with pytest.raises(EngineError):
        parser.feed(b"data: " + b"x" * 60 + b"\n")


def test_hours_of_comments_fill_nothing() -> None:
    parser = SseParser(event_bytes_max=100)
    for _ in range(1000):
        assert parser.feed(b": ping\n") == []
    assert parser.feed(b"data: a\n\n") == [SseEvent("a")]


def test_what_is_written_is_read_again() -> None:
    assert parsed(encode_event(b'{"a":1}', "ping") + encode_event(b"b")) == [SseEvent('{"a":1}', "ping"), SseEvent("b")]
