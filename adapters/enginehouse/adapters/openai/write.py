"""Canonical requests as an engine with OpenAI's HTTP API reads them."""

import base64
from collections.abc import Iterable, Mapping

from enginehouse.adapters._fields import shown, unsupported
from enginehouse.adapters._json import dumps, loads
from enginehouse.adapters.canonical import ERROR_MARK
from enginehouse.adapters.http import EngineCall
from enginehouse.adapters.lacks import Lack, cannot, refuse_what_it_lacks
from enginehouse.adapters.openai.quirks import FormatMember, OpenAIQuirks, Prefill, RunningUsage, StopText
from enginehouse.v1 import common_pb2, inference_pb2

_Members = dict[str, object]
_ROLES: Mapping[inference_pb2.Role.ValueType, str] = {
    inference_pb2.ROLE_SYSTEM: "system",
    inference_pb2.ROLE_USER: "user",
    inference_pb2.ROLE_ASSISTANT: "assistant",
    inference_pb2.ROLE_TOOL: "tool",
}
_MODE = inference_pb2.ToolChoice
_TOOL_MODES: Mapping[inference_pb2.ToolChoice.Mode.ValueType, str] = {
    _MODE.MODE_AUTO: "auto",
    _MODE.MODE_NONE: "none",
    _MODE.MODE_REQUIRED: "required",
}
_EFFORT = inference_pb2.Reasoning
_EFFORTS: Mapping[inference_pb2.Reasoning.Effort.ValueType, str] = {
    _EFFORT.EFFORT_NONE: "none",
    _EFFORT.EFFORT_LOW: "low",
    _EFFORT.EFFORT_MEDIUM: "medium",
    _EFFORT.EFFORT_HIGH: "high",
}


def write_generate(
    request: inference_pb2.GenerateRequest, *, served_model: str, output_tokens_max: int, quirks: OpenAIQuirks
) -> EngineCall:
    """A streamed chat completion, or completion for a prompt. It always streams: a client that leaves frees the slot.

    A conversation that ends with the assistant's words asks the engine to go on from them.

    Args:
        request: one that `check_generate` accepts.
        served_model: what the engine knows the model by.
        output_tokens_max: the bound that the decision held for; the engine is made to enforce it.
        quirks: the engine's.

    Raises:
        RequestError: UNSUPPORTED_FIELD or CAPABILITY_NOT_FOUND, naming what the engine cannot do.
    """
    is_chat = request.HasField("conversation")
    operation = common_pb2.OPERATION_CHAT if is_chat else common_pb2.OPERATION_COMPLETION
    _refuse_unless_offered(operation, quirks)
    refuse_what_it_lacks(request, engine=quirks.engine, features=quirks.unsupported, lacks=quirks.lacks)
    members: _Members = {"model": served_model}
    if is_chat:
        members |= _conversation(request, quirks)
    else:
        members |= _prompt(request)
    members |= _sampling(request.sampling, quirks)
    limit = request.sampling.max_output_tokens
    members[quirks.output_limit_member] = min(limit, output_tokens_max) if limit else output_tokens_max
    members |= _response_format(request.response_format, quirks) | _reasoning(request.reasoning, quirks)
    members |= _caller(request) | _extensions(request, quirks) | _streaming(quirks)
    named = f"LoRA adapter {shown(request.lora)}" if request.lora else ""
    return EngineCall("/v1/chat/completions" if is_chat else "/v1/completions", dumps(members), named)


def write_messages(
    conversation: inference_pb2.Conversation, tools: Iterable[inference_pb2.Tool], quirks: OpenAIQuirks
) -> dict[str, object]:
    """The members `messages` and `tools` alone, for engines that count tokens of a conversation."""
    members: _Members = {"messages": [_message(message, quirks) for message in conversation.messages]}
    if written := [_tool(tool) for tool in tools]:
        members["tools"] = written
    return members


def write_embed(request: inference_pb2.EmbedRequest, *, served_model: str, quirks: OpenAIQuirks) -> EngineCall:
    """Embeddings as lists of numbers.

    Raises:
        RequestError: UNSUPPORTED_FIELD, when the engine cannot shorten embeddings; CAPABILITY_NOT_FOUND.
    """
    _refuse_unless_offered(common_pb2.OPERATION_EMBEDDING, quirks)
    members: _Members = {"model": served_model, "input": list(request.input), "encoding_format": "float"}
    if request.HasField("dimensions"):
        if common_pb2.FEATURE_EMBEDDING_DIMENSIONS in quirks.unsupported:
            raise unsupported("dimensions", f"the engine {quirks.engine} cannot do it; leave it out")
        members["dimensions"] = request.dimensions
    if request.user:
        members["user"] = request.user
    return EngineCall("/v1/embeddings", dumps(members))


def write_rerank(request: inference_pb2.RerankRequest, *, served_model: str, quirks: OpenAIQuirks) -> EngineCall:
    """A ranking, in the form that Jina began and vLLM and llama.cpp follow.

    Raises:
        RequestError: CAPABILITY_NOT_FOUND, when the engine cannot rank.
    """
    _refuse_unless_offered(common_pb2.OPERATION_RERANK, quirks)
    members: _Members = {"model": served_model, "query": request.query, "documents": list(request.documents)}
    if request.top_n:
        members["top_n"] = request.top_n
    return EngineCall("/v1/rerank", dumps(members))


def _refuse_unless_offered(operation: common_pb2.Operation.ValueType, quirks: OpenAIQuirks) -> None:
    if operation not in quirks.operations:
        raise cannot(quirks.engine, operation)


def _conversation(request: inference_pb2.GenerateRequest, quirks: OpenAIQuirks) -> _Members:
    members = write_messages(request.conversation, request.tools, quirks)
    for index, tool in enumerate(request.tools):
        if tool.strict and not quirks.holds_calls_to_schema:
            advice = f"the engine {quirks.engine} does not hold calls to a tool's schema; leave it out"
            raise unsupported(f"tools[{index}].strict", advice)
    choice = request.tool_choice
    if choice.mode == _MODE.MODE_NAMED:
        members["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.mode in _TOOL_MODES:
        members["tool_choice"] = _TOOL_MODES[choice.mode]
    elif request.tools and quirks.tool_choice_default != _TOOL_MODES[_MODE.MODE_AUTO]:
        members["tool_choice"] = _TOOL_MODES[_MODE.MODE_AUTO]
    if choice.disable_parallel:
        members["parallel_tool_calls"] = False
    if request.sampling.HasField("top_logprobs"):
        members |= {"logprobs": True, "top_logprobs": request.sampling.top_logprobs}
    last = request.conversation.messages[-1]
    if last.role == inference_pb2.ROLE_ASSISTANT and not last.tool_calls:
        members |= _prefill(quirks)
    return members


def _prompt(request: inference_pb2.GenerateRequest) -> _Members:
    ids = request.HasField("prompt_tokens")
    members: _Members = {"prompt": list(request.prompt_tokens.ids) if ids else request.prompt}
    if request.sampling.HasField("top_logprobs"):
        members["logprobs"] = request.sampling.top_logprobs
    return members


def _prefill(quirks: OpenAIQuirks) -> _Members:
    match quirks.prefill:
        case Prefill.IMPLIED:
            return {}
        case Prefill.ASKED:
            return {"continue_final_message": True, "add_generation_prompt": False}
        case Prefill.UNSUPPORTED:
            advice = f"the engine {quirks.engine} cannot go on from the assistant's own words; end with the user's"
            raise unsupported("messages", advice)


def _message(message: inference_pb2.Message, quirks: OpenAIQuirks) -> _Members:
    members: _Members = {"role": _ROLES[message.role], "content": _content(message)}
    if reasoning := "".join(part.reasoning for part in message.parts):
        members[quirks.reasoning_member] = reasoning
    if message.tool_calls:
        members["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        members["tool_call_id"] = message.tool_call_id
    if message.name:
        members["name"] = message.name
    return members


def _content(message: inference_pb2.Message) -> object:
    mark = ERROR_MARK if message.is_error else ""
    parts = [part for part in message.parts if part.WhichOneof("content") != "reasoning"]
    if not parts:
        return None if message.tool_calls else mark
    if len(parts) == 1 and not parts[0].HasField("image"):
        return mark + parts[0].text  # what every template understands
    marked: list[_Members] = [{"type": "text", "text": mark}] if mark else []
    return marked + [_part(part) for part in parts]


def _part(part: inference_pb2.Part) -> _Members:
    if not part.HasField("image"):
        return {"type": "text", "text": part.text}
    image = part.image
    url = image.url or f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _tool(tool: inference_pb2.Tool) -> _Members:
    function: _Members = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = loads(tool.parameters)
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_call(call: inference_pb2.ToolCall) -> _Members:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}


def _sampling(sampling: inference_pb2.Sampling, quirks: OpenAIQuirks) -> _Members:
    members: _Members = {
        name: getattr(sampling, name)
        for name in ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")
        if sampling.HasField(name)
    }
    if quirks.top_p_below_1 and sampling.top_p >= 1:
        members.pop("top_p", None)
    if Lack.TOP_K in quirks.lacks:
        members.pop("top_k", None)  # what is left of it here means no bound
    if sampling.stop and quirks.stop_text is not StopText.UNSENT:
        members["stop"] = list(sampling.stop)
    if sampling.choices > 1:
        members["n"] = sampling.choices
    return members


def _response_format(response_format: inference_pb2.ResponseFormat, quirks: OpenAIQuirks) -> _Members:
    if response_format.json_object:
        return {"response_format": {"type": "json_object"}}
    if not response_format.HasField("json_schema"):
        return {}
    wanted = response_format.json_schema
    if quirks.format_member is FormatMember.GRAMMAR:
        return {"response_format": {"type": "json", "value": loads(wanted.schema)}}
    schema: _Members = {"name": wanted.name or "answer", "schema": loads(wanted.schema)}
    if wanted.description:
        schema["description"] = wanted.description
    if wanted.strict:
        schema["strict"] = True
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _reasoning(reasoning: inference_pb2.Reasoning, quirks: OpenAIQuirks) -> _Members:
    asked = (
        ("reasoning.effort", quirks.reasoning_effort_member, _EFFORTS.get(reasoning.effort)),
        ("reasoning.budget_tokens", quirks.reasoning_budget_member, reasoning.budget_tokens),
    )
    for path, member, value in asked:
        if value and not member:
            raise unsupported(path, f"the engine {quirks.engine} cannot be told how much to reason; leave it out")
    return {member: value for _, member, value in asked if value}


def _caller(request: inference_pb2.GenerateRequest) -> _Members:
    members: _Members = {}
    if request.user:
        members["user"] = request.user
    if request.metadata:
        members["metadata"] = dict(sorted(request.metadata.items()))
    return members


def _extensions(request: inference_pb2.GenerateRequest, quirks: OpenAIQuirks) -> _Members:
    """Members that OpenAI does not have, under the names that the engines gave them."""
    members: _Members = {}
    if request.lora:
        members[quirks.lora_member] = request.lora
    if request.priority:
        members["priority"] = request.priority
    if request.return_token_ids:
        members["return_token_ids"] = True
    return members


def stream_members(quirks: OpenAIQuirks) -> str:
    """JSON members, without braces, by which a stream tells its usage: while it runs, if the engine can."""
    return dumps(_usage_members(quirks)).decode()[1:-1]


def _streaming(quirks: OpenAIQuirks) -> _Members:
    return {"stream": True} | _usage_members(quirks)


def _usage_members(quirks: OpenAIQuirks) -> _Members:
    options: _Members = {"include_usage": True}
    members: _Members = {"stream_options": options}
    match quirks.running_usage:
        case RunningUsage.USAGE_IN_CHUNKS:
            options["continuous_usage_stats"] = True
        case RunningUsage.TIMINGS_IN_CHUNKS:
            members["timings_per_token"] = True
        case RunningUsage.NONE | RunningUsage.ONE_PER_CHUNK:
            pass
    return members
