"""Arbitrary JSON, bodies and canonical messages."""

import json
from random import Random

from hypothesis import strategies as st

from enginehouse.adapters._json import dumps
from enginehouse.v1 import common_pb2, inference_pb2

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = st.text("abcdefghijklmnop_é", min_size=1, max_size=8)
# Adding zero leaves out -0.0, which is written as 0.
NUMBER = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0)
LEAF = st.none() | st.booleans() | NUMBER | TEXT
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
SCHEMA = st.dictionaries(TEXT, JSON, min_size=1, max_size=4)


def written(value: object, random: Random) -> str:
    """`value` as some client might write it: any whitespace, any escapes."""

    def space() -> str:
        return random.choice(["", "", " ", "\n", "\t \r\n"])

    match value:
        case dict():
            members = (
                f"{space()}{_text(name, random)}{space()}:{space()}{written(item, random)}{space()}"
                for name, item in value.items()
            )
            return "{" + (",".join(members) or space()) + "}"
        case list():
            return "[" + ",".join(f"{space()}{written(item, random)}{space()}" for item in value) + "]"
        case str():
            return _text(value, random)
        case _:
            return json.dumps(value)


def _text(text: str, random: Random) -> str:
    plain = json.dumps(text, ensure_ascii=random.random() < 0.5)
    if text.isascii() and text and random.random() < 0.3:
        return '"' + "".join(f"\\u{ord(letter):04x}" for letter in text) + '"'
    return plain


@st.composite
def chat_members(draw: st.DrawFn) -> dict[str, object]:
    """The members of a chat request in any order, with whatever else a client may send."""
    texts = draw(st.lists(TEXT, min_size=1, max_size=3))
    members: dict[str, object] = {
        "model": draw(NAME),
        "messages": [{"role": "user", "content": text} for text in texts],
    }
    others: dict[str, st.SearchStrategy[object]] = {
        "max_tokens": st.none() | st.integers(1, 1000),
        "max_completion_tokens": st.none() | st.integers(1, 1000),
        "enginehouse": st.fixed_dictionaries({}, optional={"session": NAME, "chip": st.just("gpu")}),
        "stream_options": st.just({"include_usage": False}),
        "unknown é": JSON,
        "user": TEXT,
    }
    for name, strategy in others.items():
        if draw(st.booleans()):
            members[name] = draw(strategy)
    order = draw(st.permutations(list(members)))
    return {name: members[name] for name in order}


@st.composite
def generate_requests(draw: st.DrawFn) -> inference_pb2.GenerateRequest:
    """Canonical requests with everything that OpenAI's dialect can say."""
    request = inference_pb2.GenerateRequest(model=draw(NAME), user=draw(TEXT))
    request.lora, request.priority = draw(st.just("") | NAME), draw(st.integers(-(2**31) + 1, 2**31 - 1))
    request.return_token_ids = draw(st.booleans())
    match draw(st.sampled_from(["prompt", "prompt_tokens", "conversation"])):
        case "prompt":
            request.prompt = draw(TEXT)
        case "prompt_tokens":
            request.prompt_tokens.ids.extend(draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4)))
        case _:
            _converse(request, draw)
    for name, value in draw(st.dictionaries(NAME, TEXT, max_size=2)).items():
        request.metadata[name] = value
    _sample(request.sampling, draw(_SAMPLING))
    return request


def _converse(request: inference_pb2.GenerateRequest, draw: st.DrawFn) -> None:
    """Gives it a conversation, and what only conversations have."""
    request.conversation.messages.extend(draw(st.lists(_messages(), min_size=1, max_size=4)))
    last = request.conversation.messages.add(role=inference_pb2.ROLE_USER)
    last.parts.add(text=draw(TEXT))
    for index, schema in enumerate(draw(st.lists(SCHEMA, max_size=2))):
        tool = request.tools.add(name=f"tool_{index}", description=draw(TEXT), strict=draw(st.booleans()))
        tool.parameters = draw(st.just("") | st.just(dumps(schema).decode()))
    _choose_tool(request, draw(st.sampled_from(inference_pb2.ToolChoice.Mode.values())), draw(st.booleans()))
    if draw(st.booleans()):
        wanted = request.response_format.json_schema
        wanted.name, wanted.description, wanted.strict = draw(NAME), draw(TEXT), draw(st.booleans())
        wanted.schema = dumps(draw(SCHEMA)).decode()
    if draw(st.booleans()):
        request.reasoning.effort = draw(st.sampled_from(inference_pb2.Reasoning.Effort.values()[1:]))


_SAMPLING = st.fixed_dictionaries(
    {},
    optional={
        "max_output_tokens": st.integers(1, 100),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(1, 100),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "choices": st.integers(2, 128),
        "top_logprobs": st.integers(0, 20),
    },
)


def _sample(sampling: inference_pb2.Sampling, values: dict[str, float]) -> None:
    for name, value in values.items():
        setattr(sampling, name, value)


def _choose_tool(
    request: inference_pb2.GenerateRequest, mode: inference_pb2.ToolChoice.Mode.ValueType, one_by_one: bool
) -> None:
    needs_tools = mode in (inference_pb2.ToolChoice.MODE_REQUIRED, inference_pb2.ToolChoice.MODE_NAMED)
    if needs_tools and not request.tools:
        return
    request.tool_choice.mode = mode
    if mode == inference_pb2.ToolChoice.MODE_NAMED:
        request.tool_choice.name = request.tools[0].name
    if one_by_one:
        request.tool_choice.disable_parallel = True


@st.composite
def _messages(draw: st.DrawFn) -> inference_pb2.Message:
    role = draw(st.sampled_from(inference_pb2.Role.values()[1:]))
    message = inference_pb2.Message(role=role, name=draw(TEXT))
    if role == inference_pb2.ROLE_ASSISTANT and draw(st.booleans()):
        message.parts.add(reasoning=draw(TEXT.filter(bool)))
    message.parts.add(text=draw(TEXT))
    if role == inference_pb2.ROLE_USER and draw(st.booleans()):
        message.parts.add(image=inference_pb2.Image(data=draw(st.binary(min_size=1)), media_type="image/png"))
        message.parts.add(image=inference_pb2.Image(url="https://example.com/" + draw(NAME)))
    if role == inference_pb2.ROLE_ASSISTANT:
        for index, arguments in enumerate(draw(st.lists(SCHEMA, max_size=2))):
            message.tool_calls.add(id=f"c{index}", name=draw(NAME), arguments=json.dumps(arguments), index=index)
    if role == inference_pb2.ROLE_TOOL:
        message.tool_call_id = draw(NAME)
    return message


@st.composite
def generations(draw: st.DrawFn, choices: int = 1) -> list[inference_pb2.GenerateResponse]:
    """Whole generations: pieces of every kind, in any order between the choices, then their ends."""
    steps: list[inference_pb2.GenerateResponse] = []
    for _ in range(draw(st.integers(0, 12))):
        delta = inference_pb2.Delta(choice=draw(st.integers(0, choices - 1)))
        match draw(st.sampled_from(["text", "reasoning", "call"])):
            case "text":
                delta.text = draw(TEXT.filter(bool))
            case "reasoning":
                delta.reasoning = draw(TEXT.filter(bool))
            case _:
                _add_call(delta, draw(st.integers(0, 2)), draw(NAME))
        delta.token_ids.extend(draw(st.lists(st.integers(0, 2**31 - 1), max_size=2)))
        steps.append(inference_pb2.GenerateResponse(delta=delta))
    reasons = st.sampled_from(inference_pb2.FinishReason.values()[1:])
    for choice in range(choices):
        end = inference_pb2.ChoiceFinished(choice=choice, reason=draw(reasons), stop_sequence=draw(st.just("") | NAME))
        steps.append(inference_pb2.GenerateResponse(choice_finished=end))
    final = inference_pb2.GenerateResponse(finished=inference_pb2.Finished())
    usage = final.finished.usage
    usage.cached_input_tokens = draw(st.integers(0, 50))
    usage.input_tokens = usage.cached_input_tokens + draw(st.integers(0, 50))
    usage.output_tokens = draw(st.integers(0, 50))
    usage.method = common_pb2.USAGE_METHOD_ENGINE
    return [*steps, final]


def _add_call(delta: inference_pb2.Delta, index: int, text: str) -> None:
    delta.tool_calls.add(index=index, id=f"c{index}", name=f"tool_{index}", arguments=text)


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` in pieces, cut anywhere."""
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]
