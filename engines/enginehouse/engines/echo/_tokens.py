"""The echo engine's tokens: one word with the white space before it. So a token is never shorter than a byte."""

import re
import zlib
from collections.abc import Iterator

_TOKEN = re.compile(r"\s*\S+|\s+")

# What its chat template adds, as ChatML does: the role and the marks of each message, and the opening of the reply.
MESSAGE_TOKENS = 4
REPLY_TOKENS = 3


def tokens_of(text: str) -> list[str]:
    """The tokens of `text`; joined again they are `text`."""
    return _TOKEN.findall(text)


def count_tokens(text: str) -> int:
    """How many tokens `text` has, at most as many as bytes."""
    return sum(1 for _ in _TOKEN.finditer(text))


def count_chat_tokens(texts: list[str]) -> int:
    """Prompt tokens of a conversation of these messages, the template's included."""
    return sum(count_tokens(text) + MESSAGE_TOKENS for text in texts) + REPLY_TOKENS


def token_id(token: str) -> int:
    """A number for a token, the same in every process."""
    return zlib.crc32(token.encode())


def once(text: str) -> Iterator[str]:
    """The tokens of `text`."""
    yield from tokens_of(text)


def over_and_over(text: str) -> Iterator[str]:
    """The tokens of `text` without end, with a space between its repetitions; of "again" when it has none."""
    yield from tokens_of(text)
    tokens = tokens_of(text if text[:1].isspace() else " " + (text or "again"))
    while True:
        yield from tokens
