"""JSON as we accept it: with one meaning only, whichever parser reads it after us.

Values are parsed by the standard library's C scanner; only the outermost object is walked here, for its offsets.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from enginehouse.adapters._fields import shown
from enginehouse.adapters.splices import BodyLayout, MemberSpan
from enginehouse.contract import RequestError

MEMBERS_MAX = 256
_Result = TypeVar("_Result")
_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Document:
    """A body that is one JSON object, and where its members are."""

    members: dict[str, object]
    layout: BodyLayout


def dumps(value: object) -> bytes:
    """`value` as compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def loads(text: str | bytes) -> object:
    """JSON from an engine, or None if it is none. An engine is not refused for repeating a key."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def guarded(parse: Callable[[], _Result]) -> _Result:
    """Runs a parser of untrusted JSON; what is nested too deeply for it is the caller's fault.

    Raises:
        RequestError: nested too deeply, or whatever `parse` raises.
    """
    try:
        return parse()
    except RecursionError:
        raise RequestError("the body is nested too deeply; expected fewer levels of lists and objects") from None


def parse_object(body: bytes) -> Document:
    """Reads a body that must be one JSON object.

    Raises:
        RequestError: not UTF-8, not JSON, not an object, a key given twice at any depth (two parsers could disagree on
            which one counts), NaN or an infinity, half of a surrogate pair, or more than 256 members.
    """
    text = _decoded(body)
    try:
        return guarded(lambda: _scan(text))
    except json.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError as error:  # from our hooks, or a number of thousands of digits
        raise RequestError(f"the body is not acceptable JSON: {str(error).partition(';')[0]}") from None


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        message = (
            f"the body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}; expected a JSON object in UTF-8"
        )
        raise RequestError(message) from None


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {shown(name)} is given twice")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repetition, parse_float=_finite, parse_constant=_no_constant)


def _scan(text: str) -> Document:
    index = _skip_space(text, 0)
    if text[index : index + 1] != "{":
        raise json.JSONDecodeError("expected an object in braces", text, index)
    open_end = index + 1
    members: dict[str, object] = {}
    spans: list[tuple[str, int, int, int]] = []
    index = _skip_space(text, open_end)
    while text[index : index + 1] != "}":
        if spans:
            index = _expect(text, index, ",")
        start = index
        if text[index : index + 1] != '"':
            raise json.JSONDecodeError("expected a key in double quotes", text, index)
        name, index = _DECODER.raw_decode(text, index)
        value_start = _expect(text, _skip_space(text, index), ":")
        value, value_end = _DECODER.raw_decode(text, value_start)
        if name in members:
            raise ValueError(f"the key {shown(name)} is given twice")
        members[name] = value
        spans.append((name, start, value_start, value_end))
        if len(spans) > MEMBERS_MAX:
            raise ValueError(f"it has more than {MEMBERS_MAX} members")
        index = _skip_space(text, value_end)
    if (rest := _skip_space(text, index + 1)) != len(text):
        raise json.JSONDecodeError("expected nothing after the object", text, rest)
    if _SURROGATE_ESCAPE.search(text):
        _refuse_lone_surrogates(members)
    return Document(members, _layout(text, open_end, spans, members))


def _skip_space(text: str, index: int) -> int:
    match = _SPACE.match(text, index)
    return match.end() if match else index


def _expect(text: str, index: int, mark: str) -> int:
    if text[index : index + 1] != mark:
        raise json.JSONDecodeError(f"expected {mark!r}", text, index)
    return _skip_space(text, index + 1)


def _refuse_lone_surrogates(members: dict[str, object]) -> None:
    try:
        json.dumps(members, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds half of a surrogate pair") from None


def _layout(text: str, open_end: int, spans: list[tuple[str, int, int, int]], members: dict[str, object]) -> BodyLayout:
    if text.isascii():
        return BodyLayout(open_end, tuple(_span(*span, members) for span in spans))
    at, offset = 0, 0
    positions: list[int] = []
    for position in [open_end, *(number for span in spans for number in span[1:])]:
        offset += len(text[at:position].encode())
        at = position
        positions.append(offset)
    numbers = iter(positions[1:])
    names = [span[0] for span in spans]
    return BodyLayout(
        positions[0], tuple(_span(name, next(numbers), next(numbers), next(numbers), members) for name in names)
    )


def _span(name: str, start: int, value_start: int, value_end: int, members: dict[str, object]) -> MemberSpan:
    value = members[name]
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    return MemberSpan(name, start, value_start, value_end, number)
