"""A stream of events means the same however the network cuts it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from enginehouse.adapters import EventCutter, SseEvent, SseParser
from tests.property.adapters.strategies import cut

LINE = st.sampled_from(
    [b"data: {}", b"data:x", b"data", b"event: error", b"error: {}", b": ping", b"id: 1", b"", b"", b"\xc3"]
)
LINE_END = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAM = st.lists(st.tuples(LINE, LINE_END).map(b"".join), max_size=20).map(b"".join)


@settings(deadline=None, max_examples=300)
@given((STREAM | st.binary(max_size=60)).flatmap(lambda stream: st.tuples(st.just(stream), cut(stream))))
def test_chunks_change_nothing(case: tuple[bytes, list[bytes]]) -> None:
    stream, chunks = case
    whole, pieces = SseParser(), SseParser()
    assert [event for chunk in chunks for event in pieces.feed(chunk)] == whole.feed(stream)


@settings(deadline=None, max_examples=300)
@given((STREAM | st.binary(max_size=60)).flatmap(lambda stream: st.tuples(st.just(stream), cut(stream))))
def test_a_stream_cut_into_events_is_the_stream_and_each_is_one_event(case: tuple[bytes, list[bytes]]) -> None:
    stream, chunks = case
    cutter, parser = EventCutter(), SseParser()
    pieces = [piece for chunk in chunks for piece in cutter.feed(chunk)]
    assert b"".join(pieces) + cutter.rest == stream
    read = [parser.feed(piece) for piece in pieces]
    assert all(len(events) <= 1 for events in read)
    assert [event for events in read for event in events] == SseParser().feed(stream)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("abc é\t", max_size=9), LINE_END), max_size=5))
def test_events_come_out_as_they_went_in(events: list[tuple[str, bytes]]) -> None:
    stream = b"".join(b"data: " + text.encode() + end + end for text, end in events)
    assert SseParser().feed(stream) == [SseEvent(text) for text, _ in events]
