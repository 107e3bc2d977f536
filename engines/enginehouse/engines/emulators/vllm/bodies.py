"""The request bodies that only vLLM has."""

from pydantic import BaseModel, ConfigDict

from enginehouse.engines.emulators.core.bodies import Message

_LENIENT = ConfigDict(extra="allow", frozen=True)


class TokenizeBody(BaseModel):
    """POST /tokenize: a prompt, or messages."""

    model_config = _LENIENT
    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    return_token_strs: bool | None = False


class DetokenizeBody(BaseModel):
    """POST /detokenize."""

    model_config = _LENIENT
    model: str | None = None
    tokens: list[int]
