import json

import pytest

from enginehouse.adapters import collect
from enginehouse.adapters.anthropic import StreamEncoder, encode_message, encode_token_count
from enginehouse.contract import EngineError, InternalError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import HEAD, call_piece, delta, ended, finished, sse_objects

LENGTH, TOOL_CALLS = inference_pb2.FINISH_REASON_LENGTH, inference_pb2.FINISH_REASON_TOOL_CALLS
USAGE = {
    "input_tokens": 6,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 4,
    "output_tokens": 3,
}


def streamed(*steps: inference_pb2.GenerateResponse) -> bytes:
    encoder = StreamEncoder(HEAD)
    return b"".join(encoder.encode(step) for step in steps)


def shape(stream: bytes) -> list[str]:
    """Each event in a word: its type, and for blocks their index and what they carry."""
    words = []
    for event in sse_objects(stream):
        kind, block, change = event["type"], event.get("content_block"), event.get("delta")
        word = str(kind).removeprefix("content_block_")
        if isinstance(block, dict):
            word += f" {event['index']} {block['type']} {block.get('name', '')}".rstrip()
        elif kind == "content_block_delta" and isinstance(change, dict):
            word += f" {event['index']} {change.get('text') or change.get('thinking') or change.get('partial_json')}"
        elif kind == "content_block_stop":
            word += f" {event['index']}"
        words.append(word)
    return words


def test_a_text_is_the_whole_sequence_of_events() -> None:
    events = sse_objects(streamed(delta("Hi"), delta("!"), ended(), finished()))
    message: dict[str, object] = {
        "id": "answer-1", "type": "message", "role": "assistant", "model": "public", "content": [],
        "stop_reason": None, "stop_sequence": None,
        "usage": {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                  "output_tokens": 0},
    }  # fmt: skip
    assert events == [
        {"type": "message_start", "message": message},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "!"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE},
        {"type": "message_stop"},
    ]


def test_every_event_is_named_as_its_type() -> None:
    for event in streamed(delta("Hi"), ended(), finished()).split(b"\n\n")[:-1]:
        name, data = event.split(b"\n")
        assert name == b"event: " + json.loads(data.removeprefix(b"data: "))["type"].encode()


def test_a_prompt_that_was_counted_is_told_at_the_start() -> None:
    encoder = StreamEncoder(HEAD, common_pb2.Usage(input_tokens=10, cached_input_tokens=4))
    start = sse_objects(encoder.start())[0]
    assert start["message"]["usage"] == USAGE | {"output_tokens": 0}
    assert encoder.start() == b""


def test_thinking_text_and_calls_are_blocks_one_after_the_other() -> None:
    stream = streamed(
        delta(reasoning="hm"),
        delta("Let me"),
        call_piece(0, "", "t1", "f"),
        call_piece(0, '{"a": 1}'),
        call_piece(1, "{}", "t2", "g"),
        ended(TOOL_CALLS),
        finished(),
    )
    assert shape(stream)[2:] == [
        "start 0 thinking", "delta 0 hm", "stop 0",
        "start 1 text", "delta 1 Let me", "stop 1",
        "start 2 tool_use f", 'delta 2 {"a": 1}', "stop 2",
        "start 3 tool_use g", "delta 3 {}", "stop 3",
        "message_delta", "message_stop",
    ]  # fmt: skip


def test_calls_that_an_engine_interleaves_come_out_in_turn() -> None:
    stream = streamed(
        call_piece(0, '{"a":', "t1", "f"),
        call_piece(1, '{"b":', "t2", "g"),
        delta("aside"),
        call_piece(0, " 1}"),
        call_piece(1, " 2}"),
        ended(TOOL_CALLS),
        finished(),
    )
    assert shape(stream)[2:-2] == [
        "start 0 tool_use f", 'delta 0 {"a":', "delta 0  1}", "stop 0",
        "start 1 tool_use g", 'delta 1 {"b":', "delta 1  2}", "stop 1",
        "start 2 text", "delta 2 aside", "stop 2",
    ]  # fmt: skip


def test_calls_that_never_become_whole_come_out_at_the_end() -> None:
    stream = streamed(
        call_piece(0, '{"a":', "t1", "f"),
        call_piece(1, '{"b":', "t2", "g"),
        call_piece(2, "", "t3", "h"),
        call_piece(1, " 2"),
        ended(LENGTH),
        finished(),
    )
    assert shape(stream)[2:-2] == [
        "start 0 tool_use f", 'delta 0 {"a":', "stop 0",
        "start 1 tool_use g", 'delta 1 {"b":', "delta 1  2", "stop 1",
        "start 2 tool_use h", "stop 2",
    ]  # fmt: skip


def test_a_call_that_goes_on_after_it_was_whole_is_an_error() -> None:
    steps = (call_piece(0, "{}", "t1", "f"), call_piece(1, "{}", "t2", "g"))
    assert streamed(*steps, call_piece(0, "\n"))
    with pytest.raises(EngineError, match="after its arguments were whole"):
        streamed(*steps, call_piece(0, '"x"'))


@pytest.mark.parametrize(
    ("step", "stop"),
    [
        (ended(), {"stop_reason": "end_turn", "stop_sequence": None}),
        (ended(stop_sequence="END"), {"stop_reason": "stop_sequence", "stop_sequence": "END"}),
        (ended(LENGTH), {"stop_reason": "max_tokens", "stop_sequence": None}),
        (ended(TOOL_CALLS), {"stop_reason": "tool_use", "stop_sequence": None}),
        (
            ended(inference_pb2.FINISH_REASON_CONTENT_FILTER),
            {"stop_reason": "refusal", "stop_sequence": None},
        ),
    ],
)
def test_each_end_has_its_word(step: inference_pb2.GenerateResponse, stop: dict[str, object]) -> None:
    assert sse_objects(streamed(delta("Hi"), step, finished()))[-2]["delta"] == stop
    whole = json.loads(encode_message(HEAD, collect([delta("Hi"), step, finished()])))
    assert {name: whole[name] for name in stop} == stop


def test_an_end_after_a_call_is_tool_use_whatever_the_engine_calls_it() -> None:
    steps = [call_piece(0, "{}", "t1", "f"), ended(), finished()]
    assert sse_objects(streamed(*steps))[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert json.loads(encode_message(HEAD, collect(steps)))["stop_reason"] == "tool_use"


def test_a_stream_that_has_not_finished_has_no_end() -> None:
    assert shape(streamed(delta("Hi"), ended()))[-1] == "stop 0"


def test_a_whole_message() -> None:
    steps = [
        delta(reasoning="hm"),
        delta("Hi"),
        call_piece(0, '{"city": "Rome"}', "t1", "f"),
        call_piece(1, "", "t2", "g"),
        ended(TOOL_CALLS),
        finished(),
    ]
    assert json.loads(encode_message(HEAD, collect(steps))) == {
        "id": "answer-1",
        "type": "message",
        "role": "assistant",
        "model": "public",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"city": "Rome"}},
            {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": USAGE,
    }


def test_arguments_that_were_cut_off_say_so_and_others_must_be_an_object() -> None:
    cut = [call_piece(0, '{"city', "t1", "f"), ended(LENGTH), finished()]
    whole = json.loads(encode_message(HEAD, collect(cut)))
    assert (whole["content"][0]["input"], whole["stop_reason"]) == ({}, "max_tokens")
    with pytest.raises(EngineError, match="6 characters"):
        encode_message(HEAD, collect([call_piece(0, '{"city', "t1", "f"), ended(TOOL_CALLS), finished()]))


def test_a_second_choice_has_no_place() -> None:
    with pytest.raises(InternalError):
        streamed(delta("Hi", choice=1))
    with pytest.raises(InternalError):
        encode_message(HEAD, collect([delta("a"), delta("b", choice=1), ended(), ended(choice=1), finished()]))


@pytest.mark.parametrize("steps", [[finished()], [ended(inference_pb2.FINISH_REASON_UNSPECIFIED), finished()]])
def test_an_end_without_a_reason_is_our_own_mistake(steps: list[inference_pb2.GenerateResponse]) -> None:
    with pytest.raises(InternalError):
        streamed(*steps)


def test_a_count_is_one_number() -> None:
    response = inference_pb2.CountTokensResponse(model="m", input_tokens=31)
    assert json.loads(encode_token_count(response)) == {"input_tokens": 31}
