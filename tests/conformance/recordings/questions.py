"""What is asked of an engine, real or emulated, so that the answers can be compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPMethod

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
METRICS = "metrics"
# More tokens than the context of either engine as it is recorded.
LONG = "word " * 9000
_COUNTING = "one, two, three, four, five, six, seven,"
# A model goes on with two words and a comma; what says the prompt back does as well.
_TWO = {"n": 2, "temperature": 1, "ignore_eos": True}  # both end at the limit, side by side
_STOPPING = {"prompt": "one two, three four, five six, seven eight,", "max_tokens": 8, "stop": [","], "stream": True}


@dataclass(frozen=True, slots=True)
class Question:
    """One request.

    Args:
        name: of the answer in the recording.
        path: on the engine, with its query.
        body: sent as JSON; bytes are sent as they are.
        method: GET without a body, POST with one.
        headers: sent along.
    """

    name: str
    path: str
    body: Mapping[str, object] | bytes | None = None
    method: HTTPMethod = HTTPMethod.POST
    headers: Mapping[str, str] = field(default_factory=dict)


def _get(name: str, path: str) -> Question:
    return Question(name, path, method=HTTPMethod.GET)


def _chat(model: str, **members: object) -> dict[str, object]:
    said = [{"role": "user", "content": "Count to twenty, slowly."}]
    return {"model": model, "messages": said, "max_tokens": 4, "temperature": 0, **members}


def _completion(model: str, **members: object) -> dict[str, object]:
    return {"model": model, "prompt": _COUNTING, "max_tokens": 4, "temperature": 0, **members}


def _openai(model: str) -> list[Question]:
    """What every engine with OpenAI's API can be asked."""
    usage = {"include_usage": True}
    return [
        _get("models", "/v1/models"),
        _get("health", "/health"),
        Question("chat", CHAT, _chat(model)),
        Question("chat with logprobs", CHAT, _chat(model, logprobs=True, top_logprobs=2)),
        Question("chat stream", CHAT, _chat(model, stream=True)),
        Question("chat stream with usage", CHAT, _chat(model, stream=True, stream_options=usage)),
        Question("chat stream with logprobs", CHAT, _chat(model, stream=True, logprobs=True, top_logprobs=2)),
        Question("completion", COMPLETIONS, _completion(model)),
        Question("completion that stops", COMPLETIONS, _completion(model, stop=[","])),
        Question("completion stream", COMPLETIONS, _completion(model, stream=True)),
        Question("completion stream with usage", COMPLETIONS, _completion(model, stream=True, stream_options=usage)),
        Question("completion stream that stops", COMPLETIONS, _completion(model, **_STOPPING)),
        Question("no JSON", CHAT, b'{"model": '),
        Question("no messages", CHAT, {"model": model, "max_tokens": 1}),
        Question("no prompt", COMPLETIONS, {"model": model, "max_tokens": 1}),
        Question("limit of another type", CHAT, _chat(model, max_tokens="many")),
        Question("limit of nothing", CHAT, _chat(model, max_tokens=0)),
        Question("temperature below zero", CHAT, _chat(model, temperature=-1)),
        Question("top_p above one", CHAT, _chat(model, top_p=2)),
        Question("unknown path", "/v1/nowhere", {"model": model}),
        Question("wrong method", CHAT, method=HTTPMethod.GET),
    ]


def vllm_questions(model: str) -> list[Question]:
    """vLLM, started with VLLM_SERVER_DEV_MODE=1 and as Enginehouse starts it, so with usage in every chunk."""
    said = [{"role": "user", "content": "one two three"}]
    continuous = {"include_usage": True, "continuous_usage_stats": True}
    return [
        *_openai(model),
        _get("ping", "/ping"),
        _get("version", "/version"),
        _get("load", "/load"),
        Question("chat of two", CHAT, _chat(model, **_TWO)),
        Question("chat stream of two", CHAT, _chat(model, **_TWO, stream=True)),
        Question("chat stream with usage in chunks", CHAT, _chat(model, stream=True, stream_options=continuous)),
        Question("completion of two", COMPLETIONS, _completion(model, **_TWO)),
        Question("completion with logprobs", COMPLETIONS, _completion(model, logprobs=2)),
        Question("completion with its own logprobs", COMPLETIONS, _completion(model, logprobs=0)),
        Question("completion stream with logprobs", COMPLETIONS, _completion(model, logprobs=2, stream=True)),
        Question("completion echoed", COMPLETIONS, _completion(model, echo=True)),
        Question("completion of two prompts", COMPLETIONS, _completion(model, prompt=[_COUNTING, _COUNTING])),
        Question("chat in a schema", CHAT, _chat(model, max_tokens=24, response_format=_SCHEMA)),
        Question("tokenize", "/tokenize", {"model": model, "prompt": "one two three"}),
        Question("tokenize to texts", "/tokenize", {"model": model, "prompt": "one two", "return_token_strs": True}),
        Question("tokenize messages", "/tokenize", {"model": model, "messages": said}),
        Question("tokenize nothing", "/tokenize", {"model": model}),
        Question("detokenize", "/detokenize", {"model": model, "tokens": [905, 357]}),
        Question("unknown model", CHAT, _chat("nobody")),
        Question("unknown model in a stream", CHAT, _chat("nobody", stream=True)),
        Question("unknown model of tokenize", "/tokenize", {"model": "nobody", "prompt": "a"}),
        Question("empty messages", CHAT, _chat(model, messages=[])),
        Question("too long", CHAT, _chat(model, messages=[{"role": "user", "content": LONG}])),
        Question("too long in a stream", COMPLETIONS, _completion(model, prompt=LONG, stream=True)),
        Question("limit above the context", CHAT, _chat(model, max_tokens=100_000)),
        Question("limit above what is left", CHAT, _chat(model, max_tokens=2040)),
        Question("no choices", CHAT, _chat(model, n=0)),
        Question("two choices at temperature zero", CHAT, _chat(model, n=2)),
        Question("stream options without a stream", CHAT, _chat(model, stream_options={"include_usage": True})),
        Question("logprobs without asking", CHAT, _chat(model, top_logprobs=2)),
        Question("no JSON by its type", CHAT, b"{}", headers={"Content-Type": "text/plain"}),
        _get("not asleep", "/is_sleeping"),
        Question("sleep", "/sleep?level=1"),
        _get("asleep", "/is_sleeping"),
        Question("sleep of an unknown level", "/sleep?level=9"),
        Question("wake up", "/wake_up"),
        _get("awake", "/is_sleeping"),
        _get(METRICS, "/metrics"),
    ]


_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]},
    },
}


def mlx_questions(model: str) -> list[Question]:
    """mlx_lm.server. The model is "default_model": it would fetch any other."""
    return [
        *_openai(model),
        Question("chat of no model", CHAT, {**_chat(model), "model": None}),
        Question("chat without its prefix", "/chat/completions", _chat(model)),
        Question("chat of two", CHAT, _chat(model, n=2)),
        Question("completion with logprobs", COMPLETIONS, _completion(model, logprobs=True)),
        Question("logprobs as a number", COMPLETIONS, _completion(model, logprobs=2)),
        Question("empty messages", CHAT, _chat(model, messages=[])),
        Question("unknown path to read", "/nowhere", method=HTTPMethod.GET),
        Question("unknown model", CHAT, _chat("nobody/nothing")),
    ]


QUESTIONS = {"vllm": vllm_questions, "mlx": mlx_questions}
"""By kind of engine; each takes the model's name."""
