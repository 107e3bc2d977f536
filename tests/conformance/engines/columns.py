"""What is asked of every engine: the columns of docs/engines.md, each of which is one case of the suite."""

from enum import StrEnum


class Column(StrEnum):
    """One case. The value is its heading."""

    START = "start"
    UNARY = "unary"
    STREAM = "stream"
    USAGE = "usage"
    STOP = "stop"
    DETERMINISM = "determinism"
    TOOLS = "tools"
    SCHEMA = "JSON schema"
    LOGPROBS = "logprobs"
    CHOICES = "n"
    OTHER_FEATURES = "other features"
    ERRORS = "errors"
    LONG_PROMPT = "over-long prompt"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    TOKEN_COUNT = "token count"
    CANCEL = "cancel"
    METRICS = "metrics"
    AT_ONCE = "64 at once"
    DRAIN = "drain"
    SIGTERM = "SIGTERM"
    SIGKILL = "SIGKILL"
    CRASH_LOOP = "crash loop"


MEANINGS: dict[Column, str] = {
    Column.START: "The supervisor starts it by its own command line, and it is ready once it has generated a token.",
    Column.UNARY: "A whole answer, in the engine's own API.",
    Column.STREAM: "The answer comes in pieces, each choice ends with a reason, and the end says so.",
    Column.USAGE: "The engine counts; the same prompt has the same count, streamed or whole.",
    Column.STOP: "A stop sequence ends the answer, and is not in it.",
    Column.DETERMINISM: "At temperature 0, with a seed, the same request has the same answer.",
    Column.TOOLS: "A tool that must be called is called, with arguments in JSON.",
    Column.SCHEMA: "An answer that must have the form of a JSON Schema has it.",
    Column.LOGPROBS: "Each token comes with its log probability, and with alternatives.",
    Column.CHOICES: "Two answers to one request, both of them counted.",
    Column.OTHER_FEATURES: (
        "Seed, penalties, images, LoRA, reasoning, token ids and priority: answered where offered, otherwise refused."
    ),
    Column.ERRORS: "A body that it refuses is told apart from its failure, and it goes on.",
    Column.LONG_PROMPT: "A prompt that exceeds its context is the caller's error CONTEXT_TOO_LONG.",
    Column.EMBEDDINGS: "One vector for each text, the same for the same text, counted.",
    Column.RERANK: "Documents in order of their relevance.",
    Column.TOKEN_COUNT: "The count of a prompt is that of the usage of a request with it.",
    Column.CANCEL: "A client that leaves frees its place.",
    Column.METRICS: "Requests that run and wait, and the rates, are seen to move in the load that it reports.",
    Column.AT_ONCE: "64 requests at once are all answered whole.",
    Column.DRAIN: "What is in flight ends whole before the engine is ended.",
    Column.SIGTERM: "An engine that ended on a signal from outside is noticed and started again.",
    Column.SIGKILL: "An engine that was killed is noticed, named as crashed, and started again.",
    Column.CRASH_LOOP: "An engine that does not start is given up, with its exit code and its log.",
}
"""One sentence each, for the page."""

GROUPS: dict[str, tuple[Column, ...]] = {
    "Answers": (
        Column.START,
        Column.UNARY,
        Column.STREAM,
        Column.USAGE,
        Column.STOP,
        Column.DETERMINISM,
        Column.ERRORS,
        Column.LONG_PROMPT,
    ),
    "Features": (
        Column.TOOLS,
        Column.SCHEMA,
        Column.LOGPROBS,
        Column.CHOICES,
        Column.OTHER_FEATURES,
        Column.EMBEDDINGS,
        Column.RERANK,
        Column.TOKEN_COUNT,
    ),
    "Life": (
        Column.CANCEL,
        Column.METRICS,
        Column.AT_ONCE,
        Column.DRAIN,
        Column.SIGTERM,
        Column.SIGKILL,
        Column.CRASH_LOOP,
    ),
}
"""The tables of the page."""
