"""Log probabilities in the form of OpenAI's chat API, which vLLM, SGLang and TensorRT-LLM share."""

from collections.abc import Iterable

from enginehouse.engines.emulators.core.answers import Json
from enginehouse.engines.emulators.core.bodies import ChatBody, GenerationBody
from enginehouse.engines.emulators.core.plan import Token


def chat_logprobs(tokens: Iterable[Token], alternatives: int) -> Json:
    """ChatCompletionLogProbs; there is one alternative at most, the token itself."""
    return {
        "content": [
            {**_chat_logprob(token), "top_logprobs": [_chat_logprob(token)] if alternatives else []} for token in tokens
        ]
    }


def asked_logprobs(body: GenerationBody, tokens: Iterable[Token]) -> Json | None:
    """The same, if the body is a chat's and asks for them."""
    if not isinstance(body, ChatBody) or not body.logprobs:
        return None
    return chat_logprobs(tokens, body.top_logprobs or 0)


def _chat_logprob(token: Token) -> Json:
    return {"token": token.raw, "logprob": token.logprob, "bytes": list(token.raw.encode())}
