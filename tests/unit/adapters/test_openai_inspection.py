import json

import pytest

from enginehouse.adapters.openai import inspect
from enginehouse.contract import InternalError, Reason, RequestError
from enginehouse.v1 import common_pb2, router_pb2
from tests.unit.adapters.build import WEATHER_TOOL, chat_body, completion_body

CHAT, COMPLETION = common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION
EMBEDDING, RERANK = common_pb2.OPERATION_EMBEDDING, common_pb2.OPERATION_RERANK


def test_chat_tells_everything_that_routing_asks() -> None:
    body = chat_body(
        stream=True, max_tokens=5, n=2, seed=0, stop=["x"], tools=[WEATHER_TOOL], enginehouse={"chip": "gpu"}
    )
    seen = inspect(CHAT, body).routing_request("r1", router_pb2.Principal(tenant="acme"))
    assert (seen.model, seen.stream, seen.output_tokens_max, seen.choices) == ("public", True, 5, 2)
    assert set(seen.features) == {
        common_pb2.FEATURE_STREAM,
        common_pb2.FEATURE_TOOLS,
        common_pb2.FEATURE_MULTIPLE_CHOICES,
        common_pb2.FEATURE_SEED,
        common_pb2.FEATURE_STOP_SEQUENCES,
    }
    assert seen.hints.chip == common_pb2.CHIP_CLASS_GPU
    assert seen.principal.tenant == "acme"
    assert seen.message_count == 1


@pytest.mark.parametrize(
    ("members", "feature"),
    [
        ({"response_format": {"type": "json_object"}}, common_pb2.FEATURE_JSON_SCHEMA),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, common_pb2.FEATURE_JSON_SCHEMA),
        ({"guided_json": {"type": "object"}}, common_pb2.FEATURE_JSON_SCHEMA),
        ({"logprobs": True}, common_pb2.FEATURE_LOGPROBS),
        ({"presence_penalty": 0.5}, common_pb2.FEATURE_PENALTIES),
        ({"presence_penalty": 0.5}, common_pb2.FEATURE_PRESENCE_PENALTY),
        ({"priority": -1}, common_pb2.FEATURE_PRIORITY),
        ({"lora_path": "mine"}, common_pb2.FEATURE_LORA),
        ({"lora": "mine"}, common_pb2.FEATURE_LORA),
        ({"reasoning_effort": "high"}, common_pb2.FEATURE_REASONING),
        ({"return_token_ids": True}, common_pb2.FEATURE_OUTPUT_TOKEN_IDS),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, common_pb2.FEATURE_TOOLS),
    ],
)
def test_each_wish_names_its_feature(members: dict[str, object], feature: int) -> None:
    assert feature in inspect(CHAT, chat_body(**members)).features


@pytest.mark.parametrize(
    "members",
    [
        {"response_format": {"type": "text"}, "logprobs": False, "presence_penalty": 0, "stop": [], "tools": []},
        {"stream": None, "n": 1, "seed": None, "max_tokens": None, "reasoning_effort": None},
    ],
)
def test_what_asks_for_nothing_needs_no_feature(members: dict[str, object]) -> None:
    seen = inspect(CHAT, chat_body(**members))
    assert seen.features == frozenset()
    assert not seen.stream
    assert seen.output_tokens_max is None


def test_images_are_counted_and_their_bytes_are_no_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
    content = [{"type": "text", "text": "what is this?"}, image, image]
    seen = inspect(CHAT, chat_body(messages=[{"role": "user", "content": content}]))
    assert seen.image_count == 2
    assert common_pb2.FEATURE_VISION in seen.features
    assert seen.prompt_text_bytes < 100


def test_sound_is_bounded_by_its_base64() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 400, "format": "wav"}}
    seen = inspect(CHAT, chat_body(messages=[{"role": "user", "content": [sound]}]))
    assert seen.prompt_text_bytes >= 400
    assert common_pb2.FEATURE_AUDIO in seen.features


def test_a_template_that_indents_tools_stays_within_the_bound() -> None:
    tools = [WEATHER_TOOL] * 3
    seen = inspect(CHAT, chat_body(tools=tools))
    indented = json.dumps(tools, indent=4).replace("<", "\\u003c")
    assert seen.prompt_text_bytes >= len(indented) + len("Hi")


def test_the_larger_of_two_output_limits_counts() -> None:
    assert inspect(CHAT, chat_body(max_tokens=3, max_completion_tokens=9)).output_tokens_max == 9


def test_choices_are_the_larger_of_n_and_best_of_for_every_prompt() -> None:
    seen = inspect(COMPLETION, completion_body(prompt=["a", "bc"], n=2, best_of=3))
    assert seen.choices == 6
    assert common_pb2.FEATURE_MULTIPLE_CHOICES in seen.features


@pytest.mark.parametrize(("prompt", "tokens", "prompts"), [([1, 2, 3], 3, 1), ([[1, 2], [3]], 3, 2)])
def test_token_ids_count_one_each(prompt: object, tokens: int, prompts: int) -> None:
    seen = inspect(COMPLETION, completion_body(prompt=prompt))
    assert seen.prompt_text_bytes == tokens
    assert seen.choices == prompts
    assert common_pb2.FEATURE_TOKEN_IDS in seen.features


def test_embedding_inputs_are_counted() -> None:
    body = json.dumps({"model": "m", "input": ["ab", "cdé"], "dimensions": 64}).encode()
    seen = inspect(EMBEDDING, body)
    assert seen.input_count == 2
    assert seen.prompt_text_bytes >= 2 + 4
    assert seen.features == {common_pb2.FEATURE_EMBEDDING_DIMENSIONS}


def test_a_ranking_reads_the_query_with_each_document() -> None:
    body = json.dumps({"model": "m", "query": "q" * 100, "documents": ["a", {"text": "b"}, "c"]}).encode()
    seen = inspect(RERANK, body)
    assert seen.input_count == 3
    assert seen.prompt_text_bytes >= 303


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "expected an object"),
        (b"[]", "expected an object"),
        (b'"text"', "expected an object"),
        (b"{", "double quotes"),
        (b'{"model": "m",}', "double quotes"),
        (b'{"model": "m"} x', "nothing after"),
        (b'{"model": "m" "n": 1}', "','"),
        (b'{"model" "m"}', "':'"),
        (b"\xff{}", "not UTF-8: byte 0 is 0xff"),
        (b'\xef\xbb\xbf{"model": "m"}', "expected an object"),
        (b'{"model": NaN}', "NaN"),
        (b'{"temperature": -Infinity}', "-Infinity"),
        (b'{"temperature": 1e999}', "too large"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "4300"),
        (b'{"model": "a", "model": "b"}', "'model' is given twice"),
        (b'{"max_tokens": 1, "max\\u005ftokens": 9}', "'max_tokens' is given twice"),
        (b'{"messages": [{"content": "a", "content": "b"}]}', "'content' is given twice"),
        (b'{"model": "\\ud83d"}', "surrogate"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(300)) + b"}", "more than 256 members"),
        (b'{"a":' + b"[" * 30_000, "nested too deeply"),
        (b'{"a":' + b"[" * 100_000, "more than 32768 lists and objects"),
        (b'{"a":[' + b"[]," * 40_000 + b"{}]}", "more than 32768 lists and objects"),
        (b'{"a": "' + b'\\"[' * 100_000, "Unterminated string"),
    ],
)
def test_what_is_not_one_plain_json_object_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(RequestError, match=says.replace("[", r"\[")) as caught:
        inspect(CHAT, body)
    assert caught.value.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"model": "m" * 300}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": -3}, "n"),
        ({"n": 129}, "n"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"tools": {}}, "tools"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_a_member_that_does_not_fit_is_named(members: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        inspect(CHAT, chat_body(**members))
    assert caught.value.message.startswith(f"{field} ")
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    "members",
    [
        {"n_predict": 1000},
        {"n_cmpl": 8},
        {"chat_template": "{{ messages }}"},
        {"kv_transfer_params": {}},
        {"mm_processor_kwargs": {"num_crops": 16}},
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}]},
        {"stream_options": {"chunk_size": 4}},
    ],
)
def test_what_would_get_around_a_bound_is_refused(members: dict[str, object]) -> None:
    with pytest.raises(RequestError) as caught:
        inspect(CHAT, chat_body(**members))
    assert caught.value.reason is Reason.UNSUPPORTED_FIELD


@pytest.mark.parametrize("name", ["documents", "prompt", "input", "anything"])
def test_unknown_members_pass_and_count_as_text(name: str) -> None:
    plain, more = inspect(CHAT, chat_body()), inspect(CHAT, chat_body(**{name: ["d" * 1000]}))
    assert more.prompt_text_bytes >= plain.prompt_text_bytes + 1000


@pytest.mark.parametrize(
    "members",
    [
        {"messages": [{"role": "user", "content": "secret words"}], "max_tokens": "secret words"},
        {"messages": "secret words"},
        {"messages": [{"role": "user", "content": {"secret words": 1}}]},
        {"prompt": "secret words", "stop": "secret words", "n": "secret words"},
    ],
)
def test_no_refusal_quotes_the_prompt(members: dict[str, object]) -> None:
    with pytest.raises(RequestError) as caught:
        inspect(CHAT, chat_body(**members))
    assert "secret" not in str(caught.value.to_status())


def test_an_operation_of_another_dialect_is_our_own_mistake() -> None:
    with pytest.raises(InternalError):
        inspect(common_pb2.OPERATION_COUNT_TOKENS, chat_body())


def test_brackets_in_a_text_are_no_lists() -> None:
    code = 'a[i] = {"x": f(y[j])};\\ ' * 20_000
    seen = inspect(CHAT, chat_body(messages=[{"role": "user", "content": code}]))
    assert seen.prompt_text_bytes >= len(code)


def test_a_ranking_with_a_long_query_is_counted_at_once() -> None:
    query, count = "é" * 200_000, 10_000
    body = json.dumps({"model": "m", "query": query, "documents": [""] * count}, ensure_ascii=False).encode()
    assert inspect(RERANK, body).prompt_text_bytes >= len(query.encode()) * count


@pytest.mark.parametrize("wrong", [True, -1, 1.0, 2**31, "x"])
def test_a_token_id_that_is_none_is_named(wrong: object) -> None:
    with pytest.raises(RequestError) as caught:
        inspect(COMPLETION, completion_body(prompt=[1, wrong, 2]))
    assert caught.value.metadata["field"] == "prompt[1]"


def test_a_body_of_one_mebibyte_is_read() -> None:
    text = 'é"\\\n' * (1 << 18)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}, ensure_ascii=False).encode()
    assert len(body) > 1 << 20
    assert inspect(CHAT, body).prompt_text_bytes >= len(text.encode())
