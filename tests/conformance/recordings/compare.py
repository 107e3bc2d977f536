"""Field by field: what is different between two answers, apart from texts and numbers that the model makes up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.conformance.recordings.answers import Answer, Family, without_numbers

Json = Any
# Members whose text says what the engine means; all others are the model's, or its tokenizer's.
_WORDS = frozenset(
    {
        *("object", "role", "type", "param", "finish_reason", "stop_reason", "owned_by", "status", "version", "model"),
        *("id", "message", "detail", "error", "msg", "loc", "organization"),
    }
)
_NUMBERS = frozenset({"index", "code", "level", "max_model_len"})
# Lists whose length is part of the answer; others are as long as the text is.
_COUNTED = frozenset({"choices", "data", "permission", "frames"})
# Objects that have tokens for names.
_BY_TOKEN = frozenset({"top_logprobs"})
_MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the engines say differently.

    Attributes:
        path: from the question's name on, for example "chat/body/choices/0/message/refusal".
    """

    path: str
    recorded: str
    emulated: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.path}: the engine says {self.recorded}, the emulator {self.emulated}"


def differences(name: str, recorded: Answer, emulated: Answer) -> Iterator[Difference]:
    """Everything that is different between the two answers to the question `name`."""
    yield from _values(f"{name}/status", recorded.status, emulated.status, is_free=False)
    yield from _objects(f"{name}/headers", recorded.headers, emulated.headers, are_free=False)
    yield from _compared(f"{name}/body", recorded.body, emulated.body)
    yield from _lists(f"{name}/frames", recorded.frames, emulated.frames)
    yield from _pages(f"{name}/families", recorded.families, emulated.families)


def _compared(path: str, recorded: Json, emulated: Json) -> Iterator[Difference]:
    name = next(part for part in reversed(path.split("/")) if not part.isdigit())
    if type(recorded) is not type(emulated):
        yield Difference(path, _said(recorded), _said(emulated))
    elif isinstance(recorded, dict):
        if name in _BY_TOKEN:
            recorded, emulated = ({"(token)": next(iter(one.values()), None)} for one in (recorded, emulated))
        yield from _objects(path, recorded, emulated, are_free=True)
    elif isinstance(recorded, list):
        yield from _lists(path, recorded, emulated)
    else:
        is_word = isinstance(recorded, str) and (name in _WORDS or name in ("body", "frames"))
        yield from _values(path, recorded, emulated, is_free=not (is_word or name in _NUMBERS))


def _objects(
    path: str, recorded: Mapping[str, Json], emulated: Mapping[str, Json], *, are_free: bool
) -> Iterator[Difference]:
    for member in sorted(recorded.keys() | emulated.keys()):
        inner = f"{path}/{member}"
        if member not in recorded or member not in emulated:
            yield Difference(inner, _said(recorded.get(member, _MISSING)), _said(emulated.get(member, _MISSING)))
        elif are_free:
            yield from _compared(inner, recorded[member], emulated[member])
        else:
            yield from _values(inner, recorded[member], emulated[member], is_free=False)


def _lists(path: str, recorded: list[Json], emulated: list[Json]) -> Iterator[Difference]:
    name = path.rpartition("/")[2]
    if (name in _COUNTED and len(recorded) != len(emulated)) or bool(recorded) != bool(emulated):
        yield Difference(path, _said(recorded), _said(emulated))
        return
    count = len(recorded) if name in _COUNTED else min(1, len(recorded))
    for index in range(count):
        yield from _compared(f"{path}/{index}", recorded[index], emulated[index])


def _values(path: str, recorded: Json, emulated: Json, *, is_free: bool) -> Iterator[Difference]:
    if is_free:
        return
    pair = (recorded, emulated)
    one, other = map(without_numbers, pair) if isinstance(recorded, str) and isinstance(emulated, str) else pair
    if one != other:
        yield Difference(path, _said(recorded), _said(emulated))


def _pages(path: str, recorded: Mapping[str, Family], emulated: Mapping[str, Family]) -> Iterator[Difference]:
    for name in sorted(recorded.keys() | emulated.keys()):
        if recorded.get(name) != emulated.get(name):
            yield Difference(f"{path}/{name}", str(recorded.get(name, _MISSING)), str(emulated.get(name, _MISSING)))


def _said(value: Json) -> str:
    return repr(value) if value is not _MISSING else _MISSING
