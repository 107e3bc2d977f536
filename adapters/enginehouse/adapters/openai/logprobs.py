"""Log probabilities: OpenAI's form for chats, its older one for completions, and the canonical one."""

from collections.abc import Iterable, Mapping

from enginehouse.v1 import inference_pb2

_Members = dict[str, object]
_NEVER = -9999.0  # what OpenAI writes where a probability is not known


def read_logprobs(value: object, delta: inference_pb2.Delta) -> None:
    """Adds the log probabilities of one choice to `delta`, in whichever form they come."""
    if not isinstance(value, dict):
        return
    if isinstance(value.get("content"), list):
        delta.logprobs.extend(_read_token(token) for token in value["content"] if isinstance(token, dict))
    elif isinstance(value.get("tokens"), list):
        _read_lists(value, delta)


def write_chat_logprobs(tokens: Iterable[inference_pb2.TokenLogprob]) -> _Members:
    """The member `logprobs` of a chat's choice."""
    return {"content": [_write_token(token) | {"top_logprobs": _write_top(token)} for token in tokens], "refusal": None}


def write_completion_logprobs(tokens: Iterable[inference_pb2.TokenLogprob], text_offset: int) -> _Members:
    """The member `logprobs` of a completion's choice, whose first token begins at character `text_offset`."""
    tokens = list(tokens)
    offsets = []
    for token in tokens:
        offsets.append(text_offset)
        text_offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{top.token: top.logprob for top in token.top} for token in tokens],
        "text_offset": offsets,
    }


def _read_token(members: Mapping[str, object]) -> inference_pb2.TokenLogprob:
    token, logprob, token_bytes = members.get("token"), members.get("logprob"), members.get("bytes")
    top = members.get("top_logprobs")
    return inference_pb2.TokenLogprob(
        token=token if isinstance(token, str) else "",
        logprob=logprob if isinstance(logprob, int | float) else _NEVER,
        token_bytes=_read_bytes(token_bytes),
        top=[_read_token(item) for item in top if isinstance(item, dict)] if isinstance(top, list) else (),
    )


def _read_bytes(value: object) -> bytes:
    try:
        return bytes(value) if isinstance(value, list) else b""
    except (TypeError, ValueError):
        return b""


def _read_lists(value: Mapping[str, object], delta: inference_pb2.Delta) -> None:
    tokens, logprobs, tops = value.get("tokens"), value.get("token_logprobs"), value.get("top_logprobs")
    for index, token in enumerate(tokens if isinstance(tokens, list) else ()):
        logprob = logprobs[index] if isinstance(logprobs, list) and index < len(logprobs) else None
        top = tops[index] if isinstance(tops, list) and index < len(tops) else None
        read = _read_token({"token": token, "logprob": logprob})
        if isinstance(top, dict):
            read.top.extend(_read_token({"token": name, "logprob": number}) for name, number in top.items())
        delta.logprobs.append(read)


def _write_token(token: inference_pb2.TokenLogprob) -> _Members:
    return {
        "token": token.token,
        "logprob": token.logprob,
        "bytes": list(token.token_bytes) if token.token_bytes else None,
    }


def _write_top(token: inference_pb2.TokenLogprob) -> list[_Members]:
    return [_write_token(top) for top in token.top]
