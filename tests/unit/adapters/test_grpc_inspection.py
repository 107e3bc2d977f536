import gzip
import json
import struct
import tracemalloc

import pytest

from enginehouse.adapters.grpc import frame, inspect, unframe
from enginehouse.contract import InternalError, Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import generate_request

CHAT = common_pb2.OPERATION_CHAT
GZIP = {"grpc-encoding": "gzip"}


def compressed(message: bytes) -> bytes:
    packed = gzip.compress(message)
    return struct.pack(">BI", 1, len(packed)) + packed


def test_a_generation_tells_everything_that_routing_asks() -> None:
    request = generate_request("hello")
    request.sampling.choices = 3
    request.sampling.max_output_tokens = 7
    request.sampling.seed = 0
    request.tools.add(name="f", parameters='{"type": "object"}')
    request.conversation.messages[0].parts.add(image=inference_pb2.Image(url="https://example.com/a.png"))
    request.hints.residency.append("EU")
    seen = inspect(CHAT, frame(request.SerializeToString()))
    assert (seen.model, seen.stream, seen.output_tokens_max, seen.choices) == ("public", True, 7, 3)
    assert seen.features == {
        common_pb2.FEATURE_STREAM,
        common_pb2.FEATURE_TOOLS,
        common_pb2.FEATURE_VISION,
        common_pb2.FEATURE_SEED,
        common_pb2.FEATURE_MULTIPLE_CHOICES,
    }
    assert list(seen.hints.residency) == ["eu"]
    assert seen.image_count == 1
    assert seen.prompt_text_bytes >= len("hello")
    assert seen.layout is None


def test_a_prompt_is_a_completion() -> None:
    request = inference_pb2.GenerateRequest(model="m", prompt="once")
    assert inspect(CHAT, frame(request.SerializeToString())).operation == common_pb2.OPERATION_COMPLETION


def test_a_prompt_of_token_ids_has_as_many_tokens_as_ids() -> None:
    request = inference_pb2.GenerateRequest(model="m", prompt_tokens=inference_pb2.TokenIds(ids=[1, 99_999, 3]))
    request.return_token_ids, request.priority, request.sampling.presence_penalty = True, -1, 0.5
    request.lora = "mine"
    seen = inspect(CHAT, frame(request.SerializeToString()))
    assert seen.operation == common_pb2.OPERATION_COMPLETION
    assert 3 <= seen.prompt_text_bytes <= 3 + 2 * len("mine")
    assert seen.features == {
        common_pb2.FEATURE_STREAM,
        common_pb2.FEATURE_TOKEN_IDS,
        common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
        common_pb2.FEATURE_PRIORITY,
        common_pb2.FEATURE_PENALTIES,
        common_pb2.FEATURE_PRESENCE_PENALTY,
        common_pb2.FEATURE_LORA,
    }


def test_hints_come_from_headers_too() -> None:
    body = frame(generate_request().SerializeToString())
    assert inspect(CHAT, body, {"x-enginehouse-quality": "high"}).hints.quality == common_pb2.QUALITY_HIGH


def test_the_other_calls_are_counted() -> None:
    embed = inference_pb2.EmbedRequest(model="m", input=["ab", "cd"], dimensions=8)
    rerank = inference_pb2.RerankRequest(model="m", query="q" * 10, documents=["a", "b"])
    count = inference_pb2.CountTokensRequest(model="m", prompt="abc")
    embedded = inspect(common_pb2.OPERATION_EMBEDDING, frame(embed.SerializeToString()))
    ranked = inspect(common_pb2.OPERATION_RERANK, frame(rerank.SerializeToString()))
    counted = inspect(common_pb2.OPERATION_COUNT_TOKENS, frame(count.SerializeToString()))
    assert (embedded.input_count, embedded.features) == (2, frozenset({common_pb2.FEATURE_EMBEDDING_DIMENSIONS}))
    assert (ranked.input_count, ranked.prompt_text_bytes >= 22) == (2, True)
    assert counted.prompt_text_bytes >= 3


def test_a_compressed_message_is_read() -> None:
    body = compressed(generate_request("hello").SerializeToString())
    assert inspect(CHAT, body, GZIP).model == "public"


def test_a_message_that_grows_past_the_bound_is_refused() -> None:
    body = compressed(generate_request("x" * 100_000).SerializeToString())
    assert len(body) < 1000
    with pytest.raises(RequestError) as caught:
        inspect(CHAT, body, GZIP, bytes_max=50_000)
    assert caught.value.reason is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"\0\0\0\0", {}),
        (frame(b"x")[:-1], {}),
        (frame(b"x") + b"y", {}),
        (b"\2" + frame(b"x")[1:], {}),
        (compressed(b"x"), {"grpc-encoding": "deflate"}),
        (b"\1" + frame(b"not gzip")[1:], GZIP),
        (b"\1" + frame(gzip.compress(b"x" * 50)[:-12])[1:], GZIP),
        (frame(b"\xff\xff\xff"), {}),
    ],
)
def test_a_broken_frame_is_refused(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        inspect(CHAT, body, headers)


def test_framing_round_trips() -> None:
    assert unframe(frame(b"abc")) == b"abc"
    assert unframe(compressed(b"abc")) == b"abc"


def test_a_compressed_message_with_a_flipped_bit_is_refused() -> None:
    flipped = bytearray(compressed(b"abc" * 50))
    flipped[-6] ^= 1
    with pytest.raises(RequestError):
        unframe(bytes(flipped))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.ClearField("model"), "model"),
        (lambda r: r.ClearField("conversation"), "input"),
        (lambda r: r.conversation.ClearField("messages"), "conversation.messages"),
        (lambda r: r.conversation.messages.add(), "conversation.messages[1].role"),
        (lambda r: setattr(r.sampling, "max_output_tokens", 0), "sampling.max_output_tokens"),
        (lambda r: setattr(r.sampling, "choices", -1), "sampling.choices"),
        (lambda r: setattr(r.sampling, "temperature", float("nan")), "sampling.temperature"),
        (lambda r: setattr(r.hints, "price_nanousd_max", -5), "hints.price_nanousd_max"),
        (lambda r: setattr(r.hints, "chip", 77), "hints.chip"),
        (lambda r: r.hints.residency.append("eu de"), "hints.residency"),
        (lambda r: r.tools.add(name="f", parameters="[]"), "tools[0].parameters"),
    ],
)
def test_a_field_that_does_not_fit_is_named(change: object, field: str) -> None:
    request = generate_request()
    assert callable(change)
    change(request)
    with pytest.raises(RequestError) as caught:
        inspect(CHAT, frame(request.SerializeToString()))
    assert caught.value.metadata["field"] == field


def test_reasoning_is_a_feature() -> None:
    request = generate_request()
    request.reasoning.effort = inference_pb2.Reasoning.EFFORT_LOW
    assert common_pb2.FEATURE_REASONING in inspect(CHAT, frame(request.SerializeToString())).features


@pytest.mark.parametrize(
    ("change", "length"),
    [
        (lambda r: setattr(r.response_format.json_schema, "schema", json.dumps({"title": "s" * 100})), 100),
        (lambda r: setattr(r.response_format.json_schema, "description", "d" * 100), 100),
        (lambda r: setattr(r.tools[0], "parameters", json.dumps({"title": "p" * 100})), 100),
        (lambda r: setattr(r.conversation.messages[1], "is_error", True), len("Error: ")),
        (lambda r: setattr(r.reasoning, "effort", inference_pb2.Reasoning.EFFORT_HIGH), len("high")),
    ],
)
def test_whatever_the_model_may_read_is_counted(change: object, length: int) -> None:
    request = generate_request()
    request.conversation.messages.add(role=inference_pb2.ROLE_TOOL, tool_call_id="c")
    request.tools.add(name="f", parameters="{}")
    request.response_format.json_schema.schema = "{}"
    before = inspect(CHAT, frame(request.SerializeToString())).prompt_text_bytes
    assert callable(change)
    change(request)
    assert inspect(CHAT, frame(request.SerializeToString())).prompt_text_bytes >= before + length


def test_an_operation_that_is_no_call_is_our_own_mistake() -> None:
    with pytest.raises(InternalError):
        inspect(common_pb2.OPERATION_UNSPECIFIED, frame(b""))


def test_a_compressed_message_without_its_checksum_is_refused() -> None:
    whole = gzip.compress(b"abc")
    with pytest.raises(RequestError, match="cut short"):
        unframe(b"\1" + frame(whole[:-8])[1:])


def test_a_message_that_would_grow_without_end_is_never_grown() -> None:
    bomb = compressed(bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="over 1000 bytes"):
            unframe(bomb, bytes_max=1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
