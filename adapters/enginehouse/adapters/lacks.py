"""What engines cannot do, as data, and the refusals: before anything is sent, naming the field and the engine."""

from collections.abc import Callable, Collection, Mapping
from enum import Enum, unique

from enginehouse.adapters._fields import unsupported
from enginehouse.adapters.canonical import features_of
from enginehouse.contract import Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2

_ADVICE = "cannot do it; leave it out"
# What a client wrote to need the feature, for a refusal that it understands.
_FIELDS: Mapping[common_pb2.Feature.ValueType, str] = {
    common_pb2.FEATURE_TOOLS: "tools",
    common_pb2.FEATURE_JSON_SCHEMA: "response_format",
    common_pb2.FEATURE_VISION: "an image",
    common_pb2.FEATURE_LOGPROBS: "logprobs",
    common_pb2.FEATURE_SEED: "seed",
    common_pb2.FEATURE_MULTIPLE_CHOICES: "more than one choice",
    common_pb2.FEATURE_PENALTIES: "a penalty",
    common_pb2.FEATURE_PRESENCE_PENALTY: "presence_penalty",
    common_pb2.FEATURE_STOP_SEQUENCES: "a stop sequence",
    common_pb2.FEATURE_LORA: "lora",
    common_pb2.FEATURE_REASONING: "reasoning",
    common_pb2.FEATURE_TOKEN_IDS: "a prompt of token ids",
    common_pb2.FEATURE_OUTPUT_TOKEN_IDS: "return_token_ids",
    common_pb2.FEATURE_PRIORITY: "priority",
}
_OPERATIONS: Mapping[common_pb2.Operation.ValueType, str] = {
    common_pb2.OPERATION_CHAT: "chat",
    common_pb2.OPERATION_COMPLETION: "complete a prompt",
    common_pb2.OPERATION_EMBEDDING: "embed",
    common_pb2.OPERATION_RERANK: "rank documents",
    common_pb2.OPERATION_COUNT_TOKENS: "count tokens",
}


@unique
class Lack(Enum):
    """Something an engine lacks that is finer than a feature. The value is the field as clients know it."""

    TOP_K = "top_k"
    METADATA = "metadata"
    NEGATIVE_SEED = "a negative seed"
    # JSON without a schema that it follows.
    ANY_JSON = "response_format of type json_object"
    # It answers prompts without them, and chats with them.
    PROMPT_LOGPROBS = "logprobs of a prompt's completion"
    # It has one grammar, and each of the two needs it.
    TOOLS_WITH_FORMAT = "response_format beside tools"


_NEEDED: Mapping[Lack, Callable[[inference_pb2.GenerateRequest], bool]] = {
    Lack.TOP_K: lambda request: request.sampling.top_k > 0,
    Lack.METADATA: lambda request: bool(request.metadata),
    Lack.NEGATIVE_SEED: lambda request: request.sampling.seed < 0,
    Lack.ANY_JSON: lambda request: request.response_format.json_object,
    Lack.PROMPT_LOGPROBS: lambda request: (
        not request.HasField("conversation") and request.sampling.HasField("top_logprobs")
    ),
    Lack.TOOLS_WITH_FORMAT: lambda request: (
        bool(request.tools) and request.response_format.WhichOneof("format") is not None
    ),
}


def refuse_what_it_lacks(
    request: inference_pb2.GenerateRequest,
    *,
    engine: str,
    features: Collection[common_pb2.Feature.ValueType],
    lacks: Collection[Lack] = (),
) -> None:
    """Refuses a generation that asks for what the engine cannot do.

    Args:
        request: one that `check_generate` accepts.
        engine: its name.
        features: that it lacks.
        lacks: what it lacks besides.

    Raises:
        RequestError: UNSUPPORTED_FIELD, naming the field and the engine.
    """
    for feature in sorted(features_of(request) & set(features)):
        raise unsupported(_FIELDS[feature], f"the engine {engine} {_ADVICE}")
    for lack in lacks:
        if _NEEDED[lack](request):
            raise unsupported(lack.value, f"the engine {engine} {_ADVICE}")


def cannot(engine: str, operation: common_pb2.Operation.ValueType) -> RequestError:
    """The error for an operation that the engine does not have."""
    message = f"the engine {engine} cannot {_OPERATIONS[operation]}; ask a model on another engine"
    return RequestError(message, Reason.CAPABILITY_NOT_FOUND, metadata={"engine": engine})
