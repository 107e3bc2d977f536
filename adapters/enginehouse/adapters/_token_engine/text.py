"""Token ids into text as they come: never half a character, and nothing of a stop sequence."""

from collections.abc import Sequence

from enginehouse.adapters._stops import StopTrimmer
from enginehouse.adapters._token_engine.tokenizer import EngineTokenizer

_NOT_WHOLE = "\N{REPLACEMENT CHARACTER}"
# What the first token's text depends on: some tokenizers drop a space that begins a text.
_PRIMING_TOKENS = 8
# A character of UTF-8 has four bytes at most, so this many tokens hold a whole one, or none that ever will be.
_PENDING_TOKENS_MAX = 8


class TokenText:
    """The text of one choice, grown token by token.

    It decodes a short window twice, with and without the new tokens, and hands out the difference.

    Args:
        tokenizer: the engine's.
        prompt: token ids that stand before.
    """

    def __init__(self, tokenizer: EngineTokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._told = list(prompt[-_PRIMING_TOKENS:])
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """The text that is whole now. A character that stays incomplete comes as U+FFFD."""
        self._pending.append(token_id)
        before = self._tokenizer.decode(self._told)
        after = self._tokenizer.decode(self._told + self._pending)
        if after.endswith(_NOT_WHOLE) and len(self._pending) < _PENDING_TOKENS_MAX:
            return ""
        self._told, self._pending = (self._told + self._pending)[-_PRIMING_TOKENS:], []
        return after[len(before) :]


class StopSequences:
    """Cuts a text at the first stop sequence. What may be the beginning of one is held back.

    The engines end a choice with the token that completes a sequence, and hand that token out.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self._trimmer = StopTrimmer(sequences)
        self._named = ""

    @property
    def met(self) -> str:
        """The sequence that ended the text. Empty: none has."""
        return self._trimmer.found or self._named

    def push(self, text: str) -> str:
        """What may be told now; nothing any more once a sequence was met."""
        return self._trimmer.feed(text)

    def finish(self, named: str) -> str:
        """What was held back, at the end. `named`: the sequence that the engine says it met, or nothing."""
        held = self._trimmer.rest()
        if not named or self.met:
            return held
        self._named = named
        # The engine has kept the rest of the sequence to itself.
        begun = next((size for size in range(len(held), 0, -1) if named.startswith(held[-size:])), 0)
        return held[: len(held) - begun]
