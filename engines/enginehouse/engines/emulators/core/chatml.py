"""ChatML, by which the emulators' conversations become text; its marks are tokens of their own, as the models have it.

So a conversation counts as many tokens as `count_chat_tokens` says.
"""

import re
from collections.abc import Iterable

from enginehouse.engines.echo._tokens import tokens_of
from enginehouse.engines.emulators.core.bodies import Message

_MARK = re.compile(r"(<\|im_(?:start|end)\|>)")


def templated(messages: Iterable[Message]) -> str:
    """The conversation as one text, up to where the reply begins."""
    turns = [f"<|im_start|>{message.role}\n{message.text}<|im_end|>\n" for message in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def marked_tokens(text: str) -> list[str]:
    """The tokens of a text that may have marks in it."""
    return [token for part in _MARK.split(text) for token in tokens_of(part)]
