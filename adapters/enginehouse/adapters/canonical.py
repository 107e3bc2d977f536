"""The rules of a canonical request, written once for every door it can come through."""

import math
from collections.abc import Iterable, Sequence

from enginehouse.adapters._fields import malformed, missing, unfit, unsupported
from enginehouse.adapters._json import parse_text
from enginehouse.contract import RequestError
from enginehouse.v1 import common_pb2, inference_pb2

CHOICES_MAX = 128
MODEL_CHARACTERS_MAX = 256
# Messages, parts, tool calls and tools of one request together, or its texts: empty ones are nothing on the wire and
# hundreds of times as much here.
ITEMS_MAX = 16_384
# What stands before the words of a tool that failed, for engines whose dialect has no flag for it.
ERROR_MARK = "Error: "
_ONLY_CONVERSATIONS = "a prompt reaches the model as it is; send a conversation"
_MODE = inference_pb2.ToolChoice
_EFFORT = inference_pb2.Reasoning
_ROLES = (
    inference_pb2.ROLE_SYSTEM,
    inference_pb2.ROLE_USER,
    inference_pb2.ROLE_ASSISTANT,
    inference_pb2.ROLE_TOOL,
)


def check_generate(request: inference_pb2.GenerateRequest) -> None:
    """Refuses what no engine could be asked.

    Raises:
        RequestError: MALFORMED_REQUEST or UNSUPPORTED_FIELD, naming the field.
    """
    _check_model(request.model)
    _check_input(request)
    _check_sampling(request.sampling)
    _check_reasoning(request.reasoning)
    if not request.HasField("conversation") and asks_for_reasoning(request.reasoning):
        raise unsupported("reasoning", _ONLY_CONVERSATIONS)
    _check_tools(request.tools, request.tool_choice)
    if request.response_format.HasField("json_schema"):
        if not request.response_format.json_schema.schema:
            raise missing("response_format.json_schema.schema", "a JSON Schema")
        parse_text(request.response_format.json_schema.schema, "response_format.json_schema.schema")


def check_count_tokens(request: inference_pb2.CountTokensRequest) -> None:
    """The same for counting.

    Raises:
        RequestError: MALFORMED_REQUEST or UNSUPPORTED_FIELD, naming the field.
    """
    _check_model(request.model)
    _check_input(request)
    _check_tools(request.tools, _MODE())


def check_embed(request: inference_pb2.EmbedRequest) -> None:
    """The same for embeddings.

    Raises:
        RequestError: MALFORMED_REQUEST, naming the field.
    """
    _check_model(request.model)
    if not request.input:
        raise missing("input", "at least one text")
    _check_count("input", request.input)
    if request.HasField("dimensions") and request.dimensions < 1:
        raise malformed("dimensions", request.dimensions, "a whole number above 0")


def check_rerank(request: inference_pb2.RerankRequest) -> None:
    """The same for ranking.

    Raises:
        RequestError: MALFORMED_REQUEST, naming the field.
    """
    _check_model(request.model)
    if not request.query:
        raise missing("query", "a text")
    if not request.documents:
        raise missing("documents", "at least one text")
    _check_count("documents", request.documents)
    if request.top_n < 0:
        raise malformed("top_n", request.top_n, "a whole number above 0, or 0 for all")


def features_of(request: inference_pb2.GenerateRequest) -> frozenset[common_pb2.Feature.ValueType]:
    """What an engine must be able to do for `request`, beyond streaming."""
    sampling = request.sampling
    messages = request.conversation.messages
    parts = [part for message in messages for part in message.parts]
    turns_with_tools = any(message.tool_calls or message.role == inference_pb2.ROLE_TOOL for message in messages)
    needs = {
        common_pb2.FEATURE_TOOLS: bool(request.tools) or turns_with_tools,
        common_pb2.FEATURE_JSON_SCHEMA: request.response_format.WhichOneof("format") is not None,
        common_pb2.FEATURE_VISION: any(part.HasField("image") for part in parts),
        common_pb2.FEATURE_LOGPROBS: sampling.HasField("top_logprobs"),
        common_pb2.FEATURE_SEED: sampling.HasField("seed"),
        common_pb2.FEATURE_MULTIPLE_CHOICES: sampling.choices > 1,
        common_pb2.FEATURE_PENALTIES: bool(sampling.presence_penalty or sampling.frequency_penalty),
        common_pb2.FEATURE_PRESENCE_PENALTY: bool(sampling.presence_penalty),
        common_pb2.FEATURE_STOP_SEQUENCES: bool(sampling.stop),
        common_pb2.FEATURE_LORA: bool(request.lora),
        common_pb2.FEATURE_REASONING: asks_for_reasoning(request.reasoning),
        common_pb2.FEATURE_TOKEN_IDS: request.HasField("prompt_tokens"),
        common_pb2.FEATURE_OUTPUT_TOKEN_IDS: request.return_token_ids,
        common_pb2.FEATURE_PRIORITY: bool(request.priority),
    }
    return frozenset(feature for feature, needed in needs.items() if needed)


def asks_for_reasoning(reasoning: inference_pb2.Reasoning) -> bool:
    """Whether the model is to reason in any other way than it does by itself."""
    return bool(reasoning.effort or reasoning.budget_tokens)


def _check_model(model: str) -> None:
    if not model:
        raise missing("model", "the name of a model")
    if len(model) > MODEL_CHARACTERS_MAX:
        raise malformed("model", model, f"1 to {MODEL_CHARACTERS_MAX} characters")


def _check_input(request: inference_pb2.GenerateRequest | inference_pb2.CountTokensRequest) -> None:
    kind = request.WhichOneof("input")
    if kind is None:
        raise missing("input", "a conversation or a prompt")
    if kind != "conversation":
        if request.tools:
            raise unsupported("tools", _ONLY_CONVERSATIONS)
        if isinstance(request, inference_pb2.GenerateRequest) and kind == "prompt_tokens":
            _check_ids(request.prompt_tokens)
        return
    if not request.conversation.messages:
        raise missing("conversation.messages", "at least one message")
    _check_items(request)
    for index, message in enumerate(request.conversation.messages):
        _check_message(message, f"conversation.messages[{index}]")


def _check_ids(prompt: inference_pb2.TokenIds) -> None:
    if not prompt.ids:
        raise missing("prompt_tokens.ids", "at least one token")
    if min(prompt.ids) < 0:
        raise malformed("prompt_tokens.ids", min(prompt.ids), "whole numbers from 0 upward")


def _check_items(request: inference_pb2.GenerateRequest | inference_pb2.CountTokensRequest) -> None:
    messages = request.conversation.messages
    count = len(messages) + len(request.tools)
    if count <= ITEMS_MAX:
        count += sum(len(message.parts) + len(message.tool_calls) for message in messages)
    if count > ITEMS_MAX:
        message = f"the request has more than {ITEMS_MAX} messages, parts, tool calls and tools; send fewer"
        raise RequestError(message, metadata={"field": "conversation.messages"})


def _check_count(path: str, texts: Sequence[str]) -> None:
    if len(texts) > ITEMS_MAX:
        raise RequestError(f"{path} has {len(texts)} texts; send at most {ITEMS_MAX}", metadata={"field": path})


def _check_message(message: inference_pb2.Message, path: str) -> None:
    if message.role not in _ROLES:
        raise malformed(f"{path}.role", message.role, "one of ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL")
    for index, part in enumerate(message.parts):
        kind = part.WhichOneof("content")
        if kind is None:
            raise missing(f"{path}.parts[{index}].content", "text, an image or reasoning")
        if kind == "image" and not (part.image.url or part.image.data):
            raise missing(f"{path}.parts[{index}].image.source", "a URL or data")
        if part.image.data and not part.image.media_type:
            raise missing(f"{path}.parts[{index}].image.media_type", "the type of the data, like image/png")
    for index, call in enumerate(message.tool_calls):
        if not call.name:
            raise missing(f"{path}.tool_calls[{index}].name", "the name of a tool")
    if message.role == inference_pb2.ROLE_TOOL and not message.tool_call_id:
        raise missing(f"{path}.tool_call_id", "the id of the call that this message answers")
    if message.is_error and message.role != inference_pb2.ROLE_TOOL:
        raise malformed(f"{path}.is_error", message.is_error, "false: only a tool's message tells that it failed")


def _check_sampling(sampling: inference_pb2.Sampling) -> None:
    if sampling.HasField("max_output_tokens") and sampling.max_output_tokens < 1:
        raise malformed("sampling.max_output_tokens", sampling.max_output_tokens, "a whole number above 0")
    if not 0 <= sampling.choices <= CHOICES_MAX:
        raise malformed("sampling.choices", sampling.choices, f"a whole number from 0 to {CHOICES_MAX}")
    if sampling.top_logprobs < 0:
        raise malformed("sampling.top_logprobs", sampling.top_logprobs, "a whole number from 0 upward")
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        value: float = getattr(sampling, name)
        if not math.isfinite(value):
            raise malformed(f"sampling.{name}", value, "a finite number")
    if sampling.temperature < 0:
        raise malformed("sampling.temperature", sampling.temperature, "a number from 0 upward")


def _check_reasoning(reasoning: inference_pb2.Reasoning) -> None:
    if reasoning.effort not in _EFFORT.Effort.values():
        raise malformed("reasoning.effort", reasoning.effort, "a value of Reasoning.Effort")
    if reasoning.budget_tokens < 0:
        raise malformed("reasoning.budget_tokens", reasoning.budget_tokens, "tokens above 0, or 0 for no bound")
    if reasoning.effort == _EFFORT.EFFORT_NONE and reasoning.budget_tokens:
        raise malformed("reasoning.budget_tokens", reasoning.budget_tokens, "0, because effort is EFFORT_NONE")


def _check_tools(tools: Iterable[inference_pb2.Tool], choice: inference_pb2.ToolChoice) -> None:
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if not tool.name or tool.name in names:
            raise unfit(f"tools[{index}].name", tool.name, "a name that no other tool has")
        names.add(tool.name)
        if tool.parameters:
            parse_text(tool.parameters, f"tools[{index}].parameters")
    if choice.mode == _MODE.MODE_NAMED and choice.name not in names:
        raise unfit("tool_choice.name", choice.name, "one of the request's tools")
    if choice.mode == _MODE.MODE_REQUIRED and not names:
        raise missing("tools", "at least one tool, because tool_choice requires a call")
