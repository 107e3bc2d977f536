import json

import pytest

from enginehouse.adapters import SseEvent
from enginehouse.adapters.openai import (
    LLAMA_CPP,
    MLX,
    TGI,
    AnswerReader,
    OpenAIQuirks,
    read_embeddings,
    read_ranking,
)
from enginehouse.contract import EngineError, EnginehouseError, Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import texts

VLLM_LIKE = OpenAIQuirks("plain")


def reader(choices: int = 1, quirks: OpenAIQuirks = VLLM_LIKE) -> AnswerReader:
    return AnswerReader(generation_id="g1", model="public", choices=choices, quirks=quirks)


def event(frame: object, name: str = "message") -> SseEvent:
    return SseEvent(json.dumps(frame), name)


def chunk(finish: str | None = None, index: int = 0, **delta: object) -> SseEvent:
    return event({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


def test_every_step_names_the_generation_and_the_model_that_was_asked_for() -> None:
    steps = reader().read_event(chunk("length", content="Hi"))
    assert [(step.id, step.model) for step in steps] == [("g1", "public")] * 2
    assert steps[0].delta.text == "Hi"
    assert steps[1].choice_finished.reason == inference_pb2.FINISH_REASON_LENGTH


def test_a_role_alone_is_no_step() -> None:
    assert reader().read_event(chunk(role="assistant", content=None)) == []


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning"])
def test_reasoning_is_read_under_both_of_its_names(member: str) -> None:
    assert reader().read_event(event({"choices": [{"index": 0, "delta": {member: "hm"}}]}))[0].delta.reasoning == "hm"


def test_tool_calls_are_read_by_index() -> None:
    pieces = [{"index": 1, "id": "c1", "function": {"name": "f", "arguments": '{"a"'}}]
    call = reader().read_event(chunk(tool_calls=pieces))[0].delta.tool_calls[0]
    assert (call.index, call.id, call.name, call.arguments) == (1, "c1", "f", '{"a"')


def test_whole_tool_calls_without_index_and_with_an_object_are_read() -> None:
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g"}}]
    read = reader().read_event(chunk(tool_calls=calls))[0].delta.tool_calls
    assert [(call.index, call.name, call.arguments) for call in read] == [(0, "f", '{"a": 1}'), (1, "g", "")]


def test_a_call_is_named_in_its_first_piece_alone() -> None:
    # TGI repeats the id, and the official SDKs would join what is repeated.
    reading = reader(quirks=TGI)
    pieces = [{"index": 0, "id": "0", "function": {"name": name, "arguments": "{"}} for name in ("f", None, "f")]
    read = [reading.read_event(chunk(tool_calls=[piece]))[0].delta.tool_calls[0] for piece in pieces]
    assert [(call.id, call.name, call.arguments) for call in read] == [("0", "f", "{"), ("", "", "{"), ("", "", "{")]
    (end,) = reading.read_event(chunk("stop"))
    assert end.choice_finished.reason == inference_pb2.FINISH_REASON_TOOL_CALLS


def test_the_ids_of_tokens_are_read_beside_their_text() -> None:
    frame = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "token_ids": [1, 22]}]}
    assert list(reader().read_event(event(frame))[0].delta.token_ids) == [1, 22]


def test_the_end_token_that_tgis_completions_show_is_no_text() -> None:
    reading = reader(quirks=TGI)
    frames = [
        {"index": 0, "text": "Hi", "finish_reason": ""},
        {"index": 0, "text": "</s>", "finish_reason": "eos_token"},
    ]
    steps = [step for frame in frames for step in reading.read_event(event({"choices": [frame]}))]
    assert [step.delta.text for step in steps if step.HasField("delta")] == ["Hi"]
    assert steps[-1].choice_finished.reason == inference_pb2.FINISH_REASON_STOP


def test_the_answer_ends_at_the_stop_sequence_of_an_engine_that_was_not_told_of_it() -> None:
    reading = AnswerReader(generation_id="g1", model="public", choices=1, quirks=MLX, stop=["so g"])
    steps = [step for word in ("I'm", " so", " glad", " to") for step in reading.read_event(chunk(content=word))]
    steps += reading.read_event(chunk("length"))
    assert "".join(step.delta.text for step in steps) == "I'm "
    ended = steps[-1].choice_finished
    assert (ended.reason, ended.stop_sequence) == (inference_pb2.FINISH_REASON_STOP, "so g")


def test_sglang_names_the_stop_sequence_by_another_name() -> None:
    frame = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "matched_stop": "END"}]}
    assert reader().read_event(event(frame))[0].choice_finished.stop_sequence == "END"
    frame["choices"][0]["matched_stop"] = 2  # the number of a token
    assert reader().read_event(event(frame))[0].choice_finished.stop_sequence == ""


def test_the_stop_sequence_is_named_where_the_engine_names_it() -> None:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}
    assert reader().read_event(event({"choices": [choice]}))[0].choice_finished.stop_sequence == "END"
    choice["stop_reason"] = 2  # the id of an end token
    assert reader().read_event(event({"choices": [choice]}))[0].choice_finished.stop_sequence == ""


def test_logprobs_are_read_in_both_forms() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1}]}
    chat = {"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [token]}}
    older = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"b": -1}], "text_offset": [0]}
    completion = {"index": 0, "text": "a", "logprobs": older}
    for choice in (chat, completion):
        read = reader().read_event(event({"choices": [choice]}))[0].delta.logprobs[0]
        assert (read.token, read.logprob, read.top[0].token, read.top[0].logprob) == ("a", -0.5, "b", -1)


def test_the_end_carries_the_engines_count() -> None:
    stream = reader()
    stream.read_event(chunk("stop", content="Hi"))
    stream.read_event(event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}))
    stream.read_event(SseEvent("[DONE]"))
    usage = stream.finish().finished.usage
    assert stream.done
    assert (usage.input_tokens, usage.output_tokens, usage.method) == (3, 1, common_pb2.USAGE_METHOD_ENGINE)


def test_an_engine_that_does_not_count_is_charged_the_bound() -> None:
    stream = reader()
    stream.read_event(chunk("stop", content="Hi"))
    assert stream.finish().finished.usage.method == common_pb2.USAGE_METHOD_UPPER_BOUND


@pytest.mark.parametrize("ending", [[], [SseEvent("[DONE]")]])
def test_a_stream_without_every_finish_reason_ended_early(ending: list[SseEvent]) -> None:
    stream = reader(choices=2)
    for frame in (chunk(content="Hi"), chunk("stop"), chunk(index=1, content="Ho"), *ending):
        stream.read_event(frame)
    with pytest.raises(EngineError, match="ended early: 1 of 2 choices") as caught:
        stream.finish()
    assert caught.value.reason is Reason.ENGINE_FAILED


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ({"error": {"message": "secret", "type": "BadRequestError", "code": 400}}, Reason.ENGINE_REFUSED),
        ({"error": {"object": "error", "message": "secret", "code": 500}}, Reason.ENGINE_FAILED),
        ({"error": "secret"}, Reason.ENGINE_FAILED),
        ({"error": "secret", "error_type": "overloaded"}, Reason.ENGINE_OVERLOADED),
        ({"object": "error", "message": "secret", "type": "internal_error", "code": 503}, Reason.ENGINE_OVERLOADED),
        ({"error": {"message": "secret", "code": 429}, "choices": []}, Reason.ENGINE_OVERLOADED),
        ({"error": {"message": "secret", "http_status_code": 429}}, Reason.ENGINE_OVERLOADED),
        ({"error": "secret", "error_type": "validation"}, Reason.ENGINE_REFUSED),
        ({"error": "secret", "error_type": "generation"}, Reason.ENGINE_FAILED),
        ({"error": "secret", "error_type": "another"}, Reason.ENGINE_FAILED),
    ],
)
def test_an_error_inside_a_good_answer_is_one_and_quotes_nothing(frame: object, reason: Reason) -> None:
    with pytest.raises(EngineError) as caught:
        reader().read_event(event(frame))
    assert caught.value.reason is reason
    assert "secret" not in str(caught.value.to_status())


def test_the_error_field_of_older_llama_cpp_is_an_error() -> None:
    with pytest.raises(EngineError) as caught:
        reader(quirks=LLAMA_CPP).read_event(event({"code": 500, "message": "x", "type": "server_error"}, "error"))
    assert caught.value.message == "the engine llama.cpp failed with status 500 (server_error)"


def test_a_context_that_is_too_small_is_the_requests_error_with_its_numbers() -> None:
    error = {"code": 400, "type": "exceed_context_size_error", "message": "x", "n_prompt_tokens": 9, "n_ctx": 8}
    with pytest.raises(RequestError, match="9 tokens of 8") as caught:
        reader().read_event(event({"error": error}))
    assert caught.value.reason is Reason.CONTEXT_TOO_LONG


@pytest.mark.parametrize(
    "frame",
    [
        SseEvent("not json"),
        SseEvent("[1]"),
        SseEvent(""),
        chunk(index=1, content="x"),
        chunk(index=-1, content="x"),
        chunk("abort"),
        chunk("error"),
        SseEvent('{"choices": [{"index": 0, "delta": {"content": "\\ud83d"}}]}'),
    ],
)
def test_what_was_not_asked_for_is_an_error(frame: SseEvent) -> None:
    with pytest.raises(EnginehouseError) as caught:
        reader().read_event(frame)
    assert caught.value.reason is Reason.ENGINE_FAILED


def test_text_after_the_end_of_a_choice_is_an_error_and_a_repeated_end_is_none() -> None:
    stream = reader()
    stream.read_event(chunk("stop", content="Hi"))
    assert stream.read_event(chunk("stop")) == []
    with pytest.raises(EngineError, match="after its finish reason"):
        stream.read_event(chunk(content="more"))


def test_a_whole_answer_is_read_like_a_stream() -> None:
    message = {"role": "assistant", "content": "Hi", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}
    answer = {
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
    }
    whole = reader()
    steps = [*whole.read_whole(json.dumps(answer).encode()), whole.finish()]
    assert texts(steps) == "Hi"
    assert steps[0].delta.tool_calls[0].name == "f"
    assert steps[-1].finished.usage.output_tokens == 5


def test_whole_choices_of_an_engine_that_counts_one_of_them_are_charged_the_bound() -> None:
    choices = [{"index": i, "message": {"content": "x"}, "finish_reason": "stop"} for i in (0, 1)]
    whole = reader(choices=2, quirks=LLAMA_CPP)
    whole.read_whole(json.dumps({"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 5}}).encode())
    assert whole.finish().finished.usage.method == common_pb2.USAGE_METHOD_UPPER_BOUND


def test_embeddings_come_in_the_order_of_their_inputs() -> None:
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    body = json.dumps({"data": data, "usage": {"prompt_tokens": 4, "total_tokens": 4}}).encode()
    response = read_embeddings(body, model="public", count=2, engine="e")
    assert [list(item.values) for item in response.embeddings] == [[1.0], [2.0]]
    assert (response.model, response.usage.input_tokens) == ("public", 4)


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        b'{"data": []}',
        b'{"data": [{"index": 0, "embedding": ["x"]}]}',
        b'{"data": [{"index": 3, "embedding": [1]}]}',
        b'{"error": "no"}',
    ],
)
def test_embeddings_that_are_not_there_are_an_error(body: bytes) -> None:
    with pytest.raises(EngineError):
        read_embeddings(body, model="m", count=1, engine="e")


def test_a_ranking_comes_best_first() -> None:
    results = [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.9}]
    body = json.dumps({"results": results, "usage": {"total_tokens": 8}}).encode()
    response = read_ranking(body, model="public", count=2, engine="e")
    assert [result.index for result in response.results] == [1, 0]
    assert response.usage.input_tokens == 8


@pytest.mark.parametrize("body", [b"{}", b'{"results": [{"index": 2, "relevance_score": 1}]}', b'{"results": [{}]}'])
def test_a_ranking_of_other_documents_is_an_error(body: bytes) -> None:
    with pytest.raises(EngineError):
        read_ranking(body, model="m", count=2, engine="e")
