import base64
import json
import struct

import pytest

from enginehouse.adapters import EmbeddingEncoding, collect
from enginehouse.adapters.openai import StreamEncoder, encode_embeddings, encode_ranking, encode_unary
from enginehouse.contract import EngineError, InternalError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import HEAD, call_piece, delta, ended, finished, sse_objects

CHAT, COMPLETION = common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION
HEAD_MEMBERS = {"id": "answer-1", "created": 1_700_000_000, "model": "public"}


def streamed(
    *steps: inference_pb2.GenerateResponse, operation: common_pb2.Operation.ValueType = CHAT, usage: bool = True
) -> bytes:
    encoder = StreamEncoder(operation, HEAD, include_usage=usage)
    return b"".join(encoder.encode(step) for step in steps)


def test_a_chat_is_streamed_as_openai_streams_it() -> None:
    stream = streamed(delta("Hi"), delta("!"), ended(), finished())
    kind = HEAD_MEMBERS | {"object": "chat.completion.chunk", "usage": None}
    choice = {"index": 0, "logprobs": None, "finish_reason": None}
    assert sse_objects(stream) == [
        kind | {"choices": [choice | {"delta": {"role": "assistant", "content": "Hi"}}]},
        kind | {"choices": [choice | {"delta": {"content": "!"}}]},
        kind | {"choices": [choice | {"delta": {}, "finish_reason": "stop"}]},
        kind
        | {
            "choices": [],
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 3,
                "total_tokens": 13,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
        },
    ]
    assert stream.endswith(b"data: [DONE]\n\n")


def test_no_usage_frame_comes_unasked() -> None:
    assert b"usage" not in streamed(delta("Hi"), ended(), finished(), usage=False)


def test_a_usage_that_nobody_knows_is_not_written() -> None:
    unknown = finished()
    unknown.finished.usage.method = common_pb2.USAGE_METHOD_UPPER_BOUND
    assert b"prompt_tokens" not in streamed(delta("Hi"), ended(), unknown)
    assert "usage" not in json.loads(encode_unary(CHAT, HEAD, collect([delta("Hi"), ended(), unknown])))


def test_a_stream_that_has_not_finished_has_no_done() -> None:
    assert b"[DONE]" not in streamed(delta("Hi"), ended())


def test_tool_calls_are_streamed_in_pieces() -> None:
    stream = streamed(call_piece(0, "", "c1", "f"), call_piece(0, '{"a":'), call_piece(1, "{}", "c2", "g"))
    pieces = [frame["choices"][0]["delta"]["tool_calls"][0] for frame in sse_objects(stream)]
    assert pieces == [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_every_choice_opens_with_its_role() -> None:
    frames = sse_objects(streamed(delta("a"), delta("b", choice=1), delta("c"), ended(choice=2)))
    roles = [frame["choices"][0]["delta"].get("role") for frame in frames]
    assert roles == ["assistant", "assistant", None, "assistant"]


def test_completions_are_streamed_as_text_with_their_offsets() -> None:
    first, second = delta("ab"), delta("c")
    first.delta.logprobs.add(token="ab", logprob=-1.0).top.add(token="x", logprob=-2.0)
    second.delta.logprobs.add(token="c", logprob=-1.0)
    frames = sse_objects(streamed(first, second, ended(), finished(), operation=COMPLETION, usage=False))
    choices = [frame["choices"][0] for frame in frames]
    assert [choice["text"] for choice in choices] == ["ab", "c", ""]
    assert choices[0]["logprobs"] == {
        "tokens": ["ab"],
        "token_logprobs": [-1.0],
        "top_logprobs": [{"x": -2.0}],
        "text_offset": [0],
    }
    assert choices[1]["logprobs"]["text_offset"] == [2]
    assert frames[0]["object"] == "text_completion"


def test_a_whole_chat_is_one_object() -> None:
    steps = [
        delta(reasoning="hm"), delta("Hi"), delta("Ho", choice=1), delta("!"),
        call_piece(0, '{"a"', "c1", "f"), call_piece(0, ": 1}"),
        ended(inference_pb2.FINISH_REASON_TOOL_CALLS), ended(stop_sequence="END", choice=1), finished(),
    ]  # fmt: skip
    answer = json.loads(encode_unary(CHAT, HEAD, collect(steps)))
    function = {"name": "f", "arguments": '{"a": 1}'}
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hi!",
                "refusal": None,
                "reasoning_content": "hm",
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        },
        {
            "index": 1,
            "message": {"role": "assistant", "content": "Ho", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": "END",
        },
    ]
    assert answer["usage"]["total_tokens"] == 13


def test_a_chat_with_logprobs_has_them_in_chat_form() -> None:
    step = delta("é")
    step.delta.logprobs.add(token="é", logprob=-1.0, token_bytes="é".encode()).top.add(token="e", logprob=-2.0)
    expected = {
        "content": [
            {
                "token": "é",
                "logprob": -1.0,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "e", "logprob": -2.0, "bytes": None}],
            }
        ],
        "refusal": None,
    }
    assert sse_objects(streamed(step))[0]["choices"][0]["logprobs"] == expected
    whole = json.loads(encode_unary(CHAT, HEAD, collect([step, ended(), finished()])))
    assert whole["choices"][0]["logprobs"] == expected


@pytest.mark.parametrize("steps", [[], [delta("Hi")], [delta("Hi"), finished()], [delta("Hi"), ended()]])
def test_what_is_not_whole_is_not_written(steps: list[inference_pb2.GenerateResponse]) -> None:
    with pytest.raises(EngineError, match="ended early"):
        collect(steps)


def test_an_end_without_a_reason_is_our_own_mistake() -> None:
    with pytest.raises(InternalError):
        streamed(ended(inference_pb2.FINISH_REASON_UNSPECIFIED))


def test_embeddings_are_written_in_both_encodings() -> None:
    response = inference_pb2.EmbedResponse(
        model="public",
        embeddings=[inference_pb2.Embedding(index=0, values=[0.5, -2.0])],
        usage=common_pb2.Usage(input_tokens=7),
    )
    plain = json.loads(encode_embeddings(response, EmbeddingEncoding.FLOAT))
    packed = json.loads(encode_embeddings(response, EmbeddingEncoding.BASE64))
    assert plain == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -2.0]}],
        "model": "public",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    assert struct.unpack("<2f", base64.b64decode(packed["data"][0]["embedding"])) == (0.5, -2.0)


def test_rankings_are_written_with_documents_only_when_given() -> None:
    response = inference_pb2.RerankResponse(results=[inference_pb2.RerankResult(index=1, relevance_score=0.5)])
    assert json.loads(encode_ranking(response, HEAD))["results"] == [{"index": 1, "relevance_score": 0.5}]
    with_documents = json.loads(encode_ranking(response, HEAD, ["a", "b"]))
    assert with_documents["results"][0]["document"] == {"text": "b"}
