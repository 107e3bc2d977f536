"""What goes through a dialect and back is what went in."""

from hypothesis import given, settings
from hypothesis import strategies as st

from enginehouse.adapters import CollectedAnswer, Collector, SseParser, UsageMeter, collect, openai
from enginehouse.adapters._json import dumps, parse_text
from enginehouse.adapters.anthropic import StreamEncoder as AnthropicStreamEncoder
from enginehouse.adapters.openai import AnswerReader, OpenAIQuirks, StreamEncoder, encode_unary
from enginehouse.contract import EngineError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.property.adapters.strategies import SCHEMA, cut, generate_requests, generations
from tests.unit.adapters.build import HEAD, sse_objects

QUIRKS = OpenAIQuirks("any", reasoning_effort_member="reasoning_effort", holds_calls_to_schema=True, lora_member="lora")
CHAT = common_pb2.OPERATION_CHAT


def read_back(chunks: list[bytes], choices: int) -> list[inference_pb2.GenerateResponse]:
    """What an engine's stream says."""
    parser = SseParser()
    reader = AnswerReader(generation_id="g", model="m", choices=choices, quirks=QUIRKS)
    steps = [step for chunk in chunks for event in parser.feed(chunk) for step in reader.read_event(event)]
    assert reader.done
    return [*steps, reader.finish()]


def keys(value: object) -> list[object]:
    """The keys of every object in a value, in their order."""
    if isinstance(value, dict):
        return [*value, *(keys(item) for item in value.values())]
    return [keys(item) for item in value] if isinstance(value, list) else []


def said(answer: CollectedAnswer) -> list[tuple[object, ...]]:
    """What an answer says, without the numbers by which a stream tells its calls apart."""
    return [
        (
            choice.text,
            choice.reasoning,
            [(call.id, call.name, call.arguments) for _, call in sorted(choice.tool_calls.items())],
            choice.finish_reason,
            choice.stop_sequence,
        )
        for choice in answer.choices
    ]


@settings(deadline=None)
@given(SCHEMA)
def test_json_keeps_its_values_and_the_order_of_its_keys(schema: dict[str, object]) -> None:
    plain = parse_text(dumps(schema).decode(), "schema")
    assert plain == schema
    assert keys(plain) == keys(schema)


@settings(deadline=None)
@given(generate_requests())
def test_a_request_written_for_an_engine_is_the_request(request: inference_pb2.GenerateRequest) -> None:
    call = openai.write_generate(request, served_model="served", output_tokens_max=1000, quirks=QUIRKS)
    parse = openai.parse_chat if request.HasField("conversation") else openai.parse_completion
    read = parse(call.body)
    assert read.stream
    assert read.include_usage
    expected = inference_pb2.GenerateRequest()
    expected.CopyFrom(request)
    expected.model = "served"
    expected.sampling.max_output_tokens = request.sampling.max_output_tokens or 1000
    if not expected.tool_choice.ByteSize():
        expected.ClearField("tool_choice")
    if not read.request.tool_choice.ByteSize():
        read.request.ClearField("tool_choice")
    assert read.request == expected


@settings(deadline=None)
@given(st.data(), st.integers(1, 3))
def test_an_answer_streamed_and_read_is_the_answer(data: st.DataObject, choices: int) -> None:
    steps = data.draw(generations(choices))
    encoder = StreamEncoder(CHAT, HEAD, include_usage=True)
    stream = b"".join(encoder.encode(step) for step in steps)
    assert collect(read_back(data.draw(cut(stream)), choices)) == collect(steps)


@settings(deadline=None)
@given(generations(choices=2))
def test_a_whole_answer_read_is_the_answer(steps: list[inference_pb2.GenerateResponse]) -> None:
    reader = AnswerReader(generation_id="g", model="m", choices=2, quirks=QUIRKS)
    read = reader.read_whole(encode_unary(CHAT, HEAD, collect(steps)))
    answer = collect([*read, reader.finish()])
    assert said(answer) == said(collect(steps))
    assert answer.usage == collect(steps).usage


@settings(deadline=None)
@given(st.data(), st.integers(1, 2))
def test_usage_read_in_passing_is_the_usage(data: st.DataObject, choices: int) -> None:
    steps = data.draw(generations(choices))
    encoder = StreamEncoder(CHAT, HEAD, include_usage=True)
    meter = UsageMeter("text/event-stream")
    for chunk in data.draw(cut(b"".join(encoder.encode(step) for step in steps))):
        meter.feed(chunk)
    assert meter.finish() == steps[-1].finished.usage


@settings(deadline=None)
@given(generations(choices=2), st.integers(0, 20))
def test_no_encoder_says_an_end_that_it_was_not_told(steps: list[inference_pb2.GenerateResponse], count: int) -> None:
    told = steps[:count]
    encoder = StreamEncoder(CHAT, HEAD, include_usage=True)
    stream = b"".join(encoder.encode(step) for step in told)
    names = {1: "stop", 2: "length", 3: "tool_calls", 4: "content_filter"}
    ends = {
        (choice["index"], choice["finish_reason"])
        for frame in sse_objects(stream)
        for choice in frame["choices"]
        if choice["finish_reason"]
    }
    received = [step.choice_finished for step in told if step.HasField("choice_finished")]
    assert ends == {(end.choice, names[end.reason]) for end in received}
    assert stream.endswith(b"data: [DONE]\n\n") == any(step.HasField("finished") for step in told)


@settings(deadline=None)
@given(generations(), st.integers(0, 20))
def test_anthropic_events_add_up_to_the_answer_and_end_only_with_it(
    steps: list[inference_pb2.GenerateResponse], count: int
) -> None:
    told, encoder, collector = steps[:count], AnthropicStreamEncoder(HEAD), Collector()
    stream = b""
    try:
        for step in told:
            stream += encoder.encode(step)
            collector.add(step)
    except EngineError:  # arguments that went on after they were whole
        assert b"message_stop" not in stream
        return
    events = sse_objects(stream)
    ended = any(step.HasField("finished") for step in told)
    assert [event["type"] for event in events if event["type"] in ("message_delta", "message_stop")] == (
        ["message_delta", "message_stop"] if ended else []
    )
    if not ended:
        return
    said: dict[str, str] = {"text_delta": "", "thinking_delta": "", "input_json_delta": ""}
    open_blocks: list[object] = []
    for event in events:
        if event["type"] == "content_block_start":
            assert open_blocks == []
            open_blocks.append(event["index"])
        elif event["type"] == "content_block_stop":
            assert open_blocks.pop() == event["index"]
        elif event["type"] == "content_block_delta":
            assert open_blocks == [event["index"]]
            change: dict[str, str] = event["delta"]
            said[change["type"]] += change.get("text") or change.get("thinking") or change["partial_json"]
    choice = collector.answer().choices[0]
    arguments = sorted("".join(call.arguments for call in choice.tool_calls.values()))
    assert (said["text_delta"], said["thinking_delta"]) == (choice.text, choice.reasoning)
    assert sorted(said["input_json_delta"]) == arguments
