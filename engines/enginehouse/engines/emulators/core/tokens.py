"""The stand-in tokenizer: the echo engine's words, with numbers that can be turned back into text."""

from collections import OrderedDict

from enginehouse.engines.echo._tokens import tokens_of
from enginehouse.engines.emulators.core.plan import EOS_ID, EOS_TEXT, token_id

_REMEMBERED_MAX = 65_536


class Vocabulary:
    """The tokens seen so far. Numbers depend on the token alone; text is known for the last tokens seen."""

    def __init__(self) -> None:
        self._texts: OrderedDict[int, str] = OrderedDict({EOS_ID: EOS_TEXT})

    def encode(self, text: str) -> list[tuple[int, str]]:
        """Number and text of each token."""
        return self.number(tokens_of(text))

    def number(self, texts: list[str]) -> list[tuple[int, str]]:
        """The same for texts that are tokens already."""
        tokens = [(token_id(token), token) for token in texts]
        for number, token in tokens:
            self._texts[number] = token
            self._texts.move_to_end(number)
        while len(self._texts) > _REMEMBERED_MAX:
            self._texts.popitem(last=False)
        return tokens

    def decode(self, numbers: list[int]) -> str:
        """The text of these tokens; a number never seen stands for itself."""
        return "".join(self._texts.get(number, f" <{number}>") for number in numbers)
