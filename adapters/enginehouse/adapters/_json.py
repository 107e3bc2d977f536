"""JSON as we accept it: with one meaning only, whichever parser reads it after us.

Values are parsed by the standard library's C scanner; only the outermost object is walked here, for its offsets.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from enginehouse.adapters._fields import malformed, shown
from enginehouse.adapters.splices import BodyLayout, MemberSpan
from enginehouse.contract import RequestError

MEMBERS_MAX = 256
# Far above what a conversation of one mebibyte holds, and far below the hundreds of thousands of "[]" that would fit.
CONTAINERS_MAX = 32_768
# What a text inside a body may have. Protobuf allows its own messages as many.
LEVELS_MAX = 100
_Result = TypeVar("_Result")
_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
# Takes what it has taken for good, and a string without an end up to the end: linear, whatever the text is.
_STRING = re.compile(r'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?', re.DOTALL)


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


def guarded(parse: Callable[[], _Result], what: str = "the body") -> _Result:
    """Runs a parser of untrusted JSON; what is nested too deeply for it is the caller's fault.

    Raises:
        RequestError: nested too deeply, or whatever `parse` raises.
    """
    try:
        return parse()
    except RecursionError:
        raise RequestError(f"{what} is nested too deeply; expected fewer levels of lists and objects") from None


def parse_object(body: bytes) -> Document:
    """Reads a body that must be one JSON object.

    Raises:
        RequestError: not UTF-8, not JSON, not an object, a key given twice at any depth (two parsers could disagree on
            which one counts), NaN or an infinity, half of a surrogate pair, more than 256 members, or more than 32768
            lists and objects.
    """
    text = _decoded(body)
    return _strictly("the body", lambda: _scan(text), {})


def parse_text(text: str, path: str) -> dict[str, object]:
    """Reads a string of a request that must be one JSON object, as strictly as a body.

    Args:
        text: the string.
        path: where it is in the request, for messages.

    Raises:
        RequestError: as `parse_object`, or nested deeper than 100 levels.
    """
    value = _strictly(path, lambda: _value(text), {"field": path})
    if not isinstance(value, dict):
        raise malformed(path, value, "a JSON object as text")
    return value


def inner_containers(level: Iterable[object]) -> list[dict[str, object] | list[object]]:
    """The lists and objects right inside those of `level`."""
    return [
        item
        for container in level
        if isinstance(container, (dict, list))
        for item in (container.values() if isinstance(container, dict) else container)
        if isinstance(item, (dict, list))
    ]


def _strictly(what: str, parse: Callable[[], _Result], metadata: dict[str, str]) -> _Result:
    try:
        return guarded(parse, what)
    except json.JSONDecodeError as error:
        message = f"{what} is not JSON: {error.msg} at character {error.pos}"
        raise RequestError(message, metadata=metadata) from None
    except ValueError as error:  # from our hooks, or a number of thousands of digits
        message = f"{what} is not acceptable JSON: {str(error).partition(';')[0]}"
        raise RequestError(message, metadata=metadata) from None


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


def _value(text: str) -> object:
    _refuse_many_containers(text)
    value: object = _DECODER.decode(text)
    _refuse_lone_surrogates(text, value)
    level = inner_containers([[value]])
    for _ in range(LEVELS_MAX):
        level = inner_containers(level)
    if level:
        raise ValueError(f"it is nested deeper than {LEVELS_MAX} levels")
    return value


def _scan(text: str) -> Document:
    _refuse_many_containers(text)
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
    _refuse_lone_surrogates(text, members)
    return Document(members, _layout(text, open_end, spans, members))


def _skip_space(text: str, index: int) -> int:
    match = _SPACE.match(text, index)
    return match.end() if match else index


def _expect(text: str, index: int, mark: str) -> int:
    if text[index : index + 1] != mark:
        raise json.JSONDecodeError(f"expected {mark!r}", text, index)
    return _skip_space(text, index + 1)


def _refuse_many_containers(text: str) -> None:
    """Counts before anything is built: Python's objects of a body of empty lists are twenty times its size."""
    if text.count("[") + text.count("{") <= CONTAINERS_MAX:
        return
    bare = _STRING.sub("", text)
    if bare.count("[") + bare.count("{") > CONTAINERS_MAX:
        raise ValueError(f"it holds more than {CONTAINERS_MAX} lists and objects")


def _refuse_lone_surrogates(text: str, value: object) -> None:
    if not _SURROGATE_ESCAPE.search(text):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
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
