"""Canonical requests as TGI's own routes read them (docs/openapi.json of 3.3)."""

from enginehouse.adapters._fields import shown, unsupported
from enginehouse.adapters._json import dumps, loads
from enginehouse.adapters.http import EngineCall
from enginehouse.adapters.lacks import Lack, refuse_what_it_lacks
from enginehouse.adapters.openai.quirks import TGI
from enginehouse.adapters.openai.write import write_messages
from enginehouse.v1 import common_pb2, inference_pb2

ENGINE = "TGI"
# Its routes of OpenAI's names make tool calls out of a grammar of theirs; this one makes text.
UNSUPPORTED = frozenset(
    {
        common_pb2.FEATURE_TOOLS,
        common_pb2.FEATURE_MULTIPLE_CHOICES,
        common_pb2.FEATURE_PRESENCE_PENALTY,
        common_pb2.FEATURE_REASONING,
        common_pb2.FEATURE_TOKEN_IDS,
        common_pb2.FEATURE_PRIORITY,
    }
)
LACKS = frozenset({Lack.NEGATIVE_SEED, Lack.ANY_JSON})
TOP_LOGPROBS_MAX = 5  # --max-top-n-tokens
_Members = dict[str, object]


def check(request: inference_pb2.GenerateRequest) -> None:
    """Refuses what the engine cannot do, before anything is sent.

    Raises:
        RequestError: UNSUPPORTED_FIELD, naming the field and the engine.
    """
    refuse_what_it_lacks(request, engine=ENGINE, features=UNSUPPORTED, lacks=LACKS)
    if request.sampling.top_logprobs > TOP_LOGPROBS_MAX:
        advice = f"the engine {ENGINE} tells {TOP_LOGPROBS_MAX} alternatives at most"
        raise unsupported(f"{request.sampling.top_logprobs} logprobs per token", advice)
    if request.HasField("conversation"):
        last = request.conversation.messages[-1]
        if last.role == inference_pb2.ROLE_ASSISTANT and not last.tool_calls:
            advice = f"the engine {ENGINE} cannot go on from the assistant's own words; end with the user's"
            raise unsupported("messages", advice)


def write_chat(request: inference_pb2.GenerateRequest | inference_pb2.CountTokensRequest) -> EngineCall:
    """The question for a conversation as its chat template writes it, and for the tokens of that."""
    return EngineCall("/chat_tokenize", dumps(write_messages(request.conversation, request.tools, TGI)))


def write_prompt(text: str) -> EngineCall:
    """The question for the tokens of a text."""
    return EngineCall("/tokenize", dumps({"inputs": text}))


def write_generate(request: inference_pb2.GenerateRequest, inputs: str, *, output_tokens_max: int) -> EngineCall:
    """A streamed generation. It always streams: a client that leaves frees the slot.

    Args:
        request: one that `check` accepts.
        inputs: the prompt, or the conversation as its template writes it.
        output_tokens_max: the bound that the decision held for; the engine is made to enforce it.
    """
    limit = request.sampling.max_output_tokens
    parameters: _Members = {
        "details": True,
        "return_full_text": False,
        "max_new_tokens": min(limit, output_tokens_max) if limit else output_tokens_max,
        **_sampling(request.sampling),
    }
    if request.response_format.HasField("json_schema"):
        parameters["grammar"] = {"type": "json", "value": loads(request.response_format.json_schema.schema)}
    if request.lora:
        parameters["adapter_id"] = request.lora
    named = f"LoRA adapter {shown(request.lora)}" if request.lora else ""
    return EngineCall("/generate_stream", dumps({"inputs": inputs, "parameters": parameters}), named)


def _sampling(sampling: inference_pb2.Sampling) -> _Members:
    """Its bounds are open where OpenAI's are closed: what means no bound, or no chance, is left out."""
    members: _Members = {}
    if sampling.HasField("temperature"):
        members["do_sample"] = sampling.temperature > 0
        if sampling.temperature > 0:
            members["temperature"] = sampling.temperature
    if sampling.HasField("top_p") and sampling.top_p < 1:
        members["top_p"] = sampling.top_p
    if sampling.top_k > 0:
        members["top_k"] = sampling.top_k
    if sampling.HasField("seed"):
        members["seed"] = sampling.seed
    if sampling.frequency_penalty:
        members["frequency_penalty"] = sampling.frequency_penalty
    if sampling.stop:
        members["stop"] = list(sampling.stop)
    if sampling.top_logprobs:
        members["top_n_tokens"] = sampling.top_logprobs
    return members
