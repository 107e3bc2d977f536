"""What an engine's answer says, in the same words for every service that answers in token ids."""

from dataclasses import dataclass

from enginehouse.adapters.usage import Count
from enginehouse.v1 import inference_pb2


@dataclass(frozen=True, slots=True)
class TokenChance:
    """How likely a token was. `top` holds the likeliest tokens at its place."""

    token_id: int
    logprob: float
    top: tuple["TokenChance", ...] = ()


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """The next tokens of one choice.

    Attributes:
        choice: its index.
        token_ids: none in a message that only counts.
        count: of the choice so far.
        chances: of these tokens, if they were asked for.
    """

    choice: int
    token_ids: tuple[int, ...]
    count: Count
    chances: tuple[TokenChance, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    """The end of one choice.

    Attributes:
        choice: its index.
        reason: why. None: for no reason that was asked for.
        stop_sequence: that was met, if the engine names it.
    """

    choice: int
    reason: inference_pb2.FinishReason.ValueType | None
    stop_sequence: str = ""
