"""What an emulated engine answers, worked out before the first token is due.

The text is the echo engine's: the prompt said back, token by token. Two things are added that real engines have and
clients trip over: the end-of-sequence token, which is generated and counted though nobody reads it, and stop sequences
that some engines leave in the text.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, repeat

# The echo engine's own parts; they are shared, not copied, so that both say the same.
from enginehouse.engines.echo._generation import generate
from enginehouse.engines.echo._tokens import over_and_over, tokens_of

EOS_ID = 2
EOS_TEXT = "</s>"
BYTE_ID_MIN = 3
_ID_MIN = 1000  # below it: special tokens, and the byte tokens of the gRPC tokenizer
_UNSPELLED = "\ue000"
_ID_MASK = 0x7FFFFFFF  # several engines declare ids as int32


class FinishKind(StrEnum):
    """Why a choice ended."""

    LENGTH = "length"
    EOS = "eos"
    STOP_SEQUENCE = "stop_sequence"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a choice. `stop` is the stop sequence that was met."""

    kind: FinishKind
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    Attributes:
        id: its number in the vocabulary.
        text: what an engine shows that cuts stop sequences off.
        raw: what was generated.
        is_special: the end-of-sequence token.
    """

    id: int
    text: str
    raw: str
    is_special: bool = False

    @property
    def logprob(self) -> float:
        """A number that depends on the token alone."""
        return -((self.id % 997) + 1) / 1000.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One choice, from its first token to its last."""

    tokens: tuple[Token, ...]
    finish: Finish

    @property
    def text(self) -> str:
        """The text without the stop sequence and without special tokens."""
        return "".join(token.text for token in self.tokens)

    @property
    def raw_text(self) -> str:
        """The text with the stop sequence, without special tokens."""
        return "".join(token.raw for token in self.tokens if not token.is_special)

    def cut(self, generated: int) -> "Plan":
        """The plan as far as it came; one that did not come to its end was aborted."""
        return self if generated >= len(self.tokens) else Plan(self.tokens[:generated], Finish(FinishKind.ABORT))


def token_id(text: str) -> int:
    """The number of a token, the same in every process."""
    return _ID_MIN + (zlib.crc32(text.encode()) & _ID_MASK) % (_ID_MASK - _ID_MIN)


def plan_echo(text: str, tokens_max: int, stops: Sequence[str] = (), *, ends: bool = True) -> Plan:
    """The plan that says `text` back.

    Args:
        tokens_max: at least 1; the end-of-sequence token counts.
        ends: False for a request that ignores the end of sequence: the text is repeated until a limit ends it.
    """
    return plan_tokens(tokens_of(text) if ends else over_and_over(text), tokens_max, stops)


def plan_ids(ids: Sequence[int], tokens_max: int, stops: Sequence[str] = (), *, ends: bool = True) -> Plan:
    """The plan that says token ids back, for callers with a tokenizer of their own.

    Stop sequences are met in what byte tokens spell; see `enginehouse.engines.emulators.core.byte_tokenizer`.
    """
    spelled = [_spelled(number) for number in ids] or [_UNSPELLED]
    numbers = list(ids) or [EOS_ID]
    repeated = chain.from_iterable(repeat(spelled)) if not ends else iter(spelled)
    plan = plan_tokens(repeated, tokens_max, [stop.encode().decode("latin-1") for stop in stops])
    count = sum(not token.is_special for token in plan.tokens)
    renumbered = [
        Token(numbers[index % len(numbers)], token.text, token.raw) for index, token in enumerate(plan.tokens[:count])
    ]
    finish = plan.finish
    if finish.stop is not None:
        finish = Finish(finish.kind, finish.stop.encode("latin-1").decode())
    return Plan((*renumbered, *plan.tokens[count:]), finish)


def _spelled(number: int) -> str:
    return chr(number - BYTE_ID_MIN) if BYTE_ID_MIN <= number < BYTE_ID_MIN + 256 else _UNSPELLED


def plan_tokens(tokens: Iterable[str], tokens_max: int, stops: Sequence[str] = ()) -> Plan:
    """The plan that says these tokens, with the end-of-sequence token when nothing else ends it first."""
    taken: list[str] = []

    def take() -> Iterable[str]:
        for token in tokens:
            taken.append(token)
            yield token

    generation = generate(take(), tokens_max, stops)
    raws = taken[: len(generation.pieces)]
    shown = [Token(token_id(raw), text, raw) for raw, text in zip(raws, generation.pieces, strict=True)]
    stop = _first_stop("".join(raws), stops)
    if stop is not None:
        return Plan(tuple(shown), Finish(FinishKind.STOP_SEQUENCE, stop))
    if generation.finish_reason == "length" or len(shown) >= tokens_max:
        return Plan(tuple(shown), Finish(FinishKind.LENGTH))
    return Plan((*shown, Token(EOS_ID, "", EOS_TEXT, is_special=True)), Finish(FinishKind.EOS))


def _first_stop(text: str, stops: Sequence[str]) -> str | None:
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    return min(found)[1] if found else None
