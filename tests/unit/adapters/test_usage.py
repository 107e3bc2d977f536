import json

import pytest

from enginehouse.adapters import UsageMeter, UsageScope
from enginehouse.v1 import common_pb2

SSE, JSON = "text/event-stream", "application/json"
ENGINE, PARTIAL = common_pb2.USAGE_METHOD_ENGINE, common_pb2.USAGE_METHOD_ENGINE_PARTIAL
UPPER_BOUND = common_pb2.USAGE_METHOD_UPPER_BOUND


def counted(meter: UsageMeter) -> tuple[int, int, int, int]:
    usage = meter.usage
    return usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.method


def fed(content_type: str, *frames: object, scope: UsageScope = UsageScope.CHOICE_WHILE_RUNNING) -> UsageMeter:
    meter = UsageMeter(content_type, scope)
    for frame in frames:
        text = json.dumps(frame).encode()
        meter.feed(b"data: " + text + b"\n\n" if content_type == SSE else text)
    return meter


def chunk(choice: int, finish: str | None = None, **members: object) -> dict[str, object]:
    return {"choices": [{"index": choice, "delta": {}, "finish_reason": finish}], **members}


def openai_usage(prompt: int, completion: int, cached: int | None = None) -> dict[str, object]:
    details = None if cached is None else {"cached_tokens": cached}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}


def test_a_stream_is_whole_when_every_choice_has_told_why_it_ended() -> None:
    meter = UsageMeter(SSE, choices=2)
    for frame, whole in ((chunk(0), False), (chunk(0, "stop"), False), (chunk(1), False), (chunk(1, "length"), True)):
        meter.feed(b"data: " + json.dumps(frame).encode() + b"\n\n")
        assert meter.is_whole == whole
    meter.feed(b"data: " + json.dumps(chunk(0, usage=openai_usage(9, 4))).encode() + b"\n\n")
    assert meter.is_whole  # a last word about a choice that has ended opens it no more


@pytest.mark.parametrize("reason", ["abort", "error", "cancelled", "timeout", 5])
def test_an_end_that_nobody_asked_for_is_none(reason: str) -> None:
    meter = fed(SSE, chunk(0, reason, usage=openai_usage(9, 4)))
    assert not meter.is_whole
    assert counted(meter) == (9, 0, 4, PARTIAL)


@pytest.mark.parametrize(
    ("event", "failure"),
    [
        (b'data: {"error": {"message": "x"}}', {"error": {"message": "x"}}),
        (b'data: {"error": "x"}', {"error": "x"}),
        (b'data: {"object": "error", "message": "x"}', {"object": "error", "message": "x"}),
        (b'error: {"code": 500}', {"code": 500}),
        (b"event: error\ndata: died", "died"),
    ],
)
def test_a_failure_is_heard_in_every_form_and_its_count_is_partial(event: bytes, failure: object) -> None:
    meter = fed(SSE, chunk(0, "stop", usage=openai_usage(9, 4)))
    assert (meter.is_whole, meter.failure) == (True, None)
    meter.feed(event + b"\n\n")
    assert (meter.is_whole, meter.failure) == (False, failure)
    assert counted(meter) == (9, 0, 4, PARTIAL)


def test_done_is_no_end() -> None:
    meter = fed(SSE, chunk(0))
    meter.feed(b"data: [DONE]\n\n")
    assert (meter.is_done, meter.is_whole) == (True, False)


def test_the_last_frame_of_a_stream_counts_it_all() -> None:
    meter = fed(SSE, chunk(0), chunk(0, "stop", usage=None), {"choices": [], "usage": openai_usage(9, 4, 2)})
    meter.finish()
    assert counted(meter) == (9, 2, 4, ENGINE)


def test_a_cut_stream_has_the_running_count() -> None:
    meter = fed(SSE, chunk(0, usage=openai_usage(9, 1)), chunk(0, usage=openai_usage(9, 2)))
    assert counted(meter) == (9, 0, 2, PARTIAL)


def test_running_counts_of_choices_add_up() -> None:
    meter = fed(SSE, *(chunk(choice, usage=openai_usage(9, n)) for choice, n in ((0, 1), (1, 1), (0, 2), (1, 5))))
    assert counted(meter) == (9, 0, 7, PARTIAL)


def test_running_counts_of_the_whole_generation_are_not_added_up() -> None:
    frames = [chunk(choice, usage=openai_usage(9, n)) for choice, n in ((0, 1), (1, 2), (0, 3), (1, 4))]
    assert counted(fed(SSE, *frames, scope=UsageScope.GENERATION)) == (9, 0, 4, PARTIAL)


def test_the_sum_at_the_end_is_not_added_to_running_counts() -> None:
    frames = [chunk(0, "stop", usage=openai_usage(9, 2)), chunk(1, "stop", usage=openai_usage(9, 5))]
    meter = fed(SSE, *frames, {"choices": [], "usage": openai_usage(9, 7)})
    assert counted(meter) == (9, 0, 7, ENGINE)


def test_timings_count_cached_and_new_tokens_together() -> None:
    meter = fed(SSE, chunk(0, timings={"cache_n": 24, "prompt_n": 7, "predicted_n": 6}))
    assert counted(meter) == (31, 24, 6, PARTIAL)


def test_an_engine_that_counts_each_choice_alone_is_added_up() -> None:
    meter = fed(
        SSE,
        chunk(1, "length"),
        {"choices": [], "usage": openai_usage(31, 3, 30)},
        chunk(0, "length"),
        {"choices": [], "usage": openai_usage(31, 5, 0)},
        scope=UsageScope.CHOICE,
    )
    assert counted(meter) == (31, 0, 8, ENGINE)


def test_one_count_for_several_whole_choices_is_no_count() -> None:
    answer = {"choices": [{"index": 0}, {"index": 1}], "usage": openai_usage(31, 3)}
    meter = fed(JSON, answer, scope=UsageScope.CHOICE)
    assert meter.finish().method == UPPER_BOUND
    assert fed(JSON, answer).finish().output_tokens == 3


def test_a_whole_answer_is_counted_when_it_is_whole() -> None:
    text = json.dumps({"choices": [{"index": 0}], "usage": openai_usage(9, 4)}).encode()
    meter = UsageMeter(JSON)
    meter.feed(text[:20])
    assert meter.usage.method == UPPER_BOUND
    meter.feed(text[20:])
    meter.finish()
    assert counted(meter) == (9, 0, 4, ENGINE)


def test_anthropic_counts_what_was_cached_beside_its_input() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 1, "cache_read_input_tokens": 30}}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
    meter = fed(SSE, start)
    assert counted(meter) == (31, 30, 0, PARTIAL)
    meter.feed(b"data: " + json.dumps(end).encode() + b"\n\n")
    assert counted(meter) == (31, 30, 3, ENGINE)


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": 7, "total_tokens": 7}, {"total_tokens": 7}, {"input_tokens": 7, "output_tokens": 0}]
)
def test_pooled_answers_count_their_input(usage: dict[str, int]) -> None:
    meter = fed(JSON, {"data": [], "usage": usage})
    meter.finish()
    assert counted(meter) == (7, 0, 0, ENGINE)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"usage": 5}', b'{"usage": null}'])
def test_an_answer_without_a_count_is_charged_its_bound(body: bytes) -> None:
    meter = UsageMeter(JSON)
    meter.feed(body)
    assert meter.finish().method == UPPER_BOUND


def test_a_stream_that_is_no_stream_breaks_nothing() -> None:
    meter = UsageMeter(SSE)
    meter.feed(b"x" * (2 << 20))
    meter.feed(b"data: {}\n\n")
    assert meter.finish().method == UPPER_BOUND
