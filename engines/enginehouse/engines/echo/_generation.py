"""What the echo engine answers, worked out before the first token is sent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One choice.

    Args:
        pieces: the text of each generated token. Tokens that a stop sequence swallowed are there and empty: they were
            generated, so they count.
        finish_reason: "length" if the output limit cut it.
    """

    pieces: tuple[str, ...]
    finish_reason: FinishReason

    @property
    def text(self) -> str:
        """What the client reads."""
        return "".join(self.pieces)


def generate(tokens: Iterable[str], tokens_max: int, stops: Sequence[str]) -> Generation:
    """Takes tokens until there are no more, `tokens_max` are there, or a stop sequence is complete.

    The text ends before the stop sequence, wherever in a token that is.
    """
    pieces: list[str] = []
    text = ""
    longest_stop = max(map(len, stops), default=0)
    for token in tokens:
        if len(pieces) == tokens_max:
            return Generation(tuple(pieces), "length")
        pieces.append(token)
        seen_from = max(0, len(text) - longest_stop)
        text += token
        found = [at for stop in stops if (at := text.find(stop, seen_from)) >= 0]
        if found:
            return Generation(_cut(pieces, min(found)), "stop")
    return Generation(tuple(pieces), "stop")


def _cut(pieces: Sequence[str], length: int) -> tuple[str, ...]:
    """The pieces, with nothing of the text after its first `length` characters."""
    cut: list[str] = []
    for piece in pieces:
        kept = piece[: max(0, length)]
        length -= len(piece)
        cut.append(kept)
    return tuple(cut)
