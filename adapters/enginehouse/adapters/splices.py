"""Small rewrites of a JSON body by byte offsets, so that Envoy can make them without parsing it.

A splice's text is ours alone and ASCII: it travels in a header, and the access log carries what the router says.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from enginehouse.contract import InternalError

HINTS_MEMBER = "enginehouse"
# OpenAI renamed the first to the second; engines differ in which of them wins, so both are held to the cap.
OUTPUT_LIMIT_MEMBERS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class MemberSpan:
    """Byte offsets of one top-level member of a body.

    Attributes:
        name: the key, decoded.
        start: of the key's opening quote.
        value_start: of the value's first byte.
        value_end: just past the value's last byte.
        number: the value when it is a whole number.
    """

    name: str
    start: int
    value_start: int
    value_end: int
    number: int | None = None


@dataclass(frozen=True, slots=True)
class BodyLayout:
    """Where the top-level members of a body are, in its own order. No two have the same name.

    Attributes:
        open_end: just past the opening brace, where members are inserted.
    """

    open_end: int
    members: tuple[MemberSpan, ...]

    def find(self, name: str) -> MemberSpan | None:
        """The member of that name."""
        return next((member for member in self.members if member.name == name), None)


@dataclass(frozen=True, slots=True, order=True)
class Splice:
    """Replaces `length` bytes at byte `offset` by `text`."""

    offset: int
    length: int
    text: str


def set_model(layout: BodyLayout, served: str) -> tuple[Splice, ...]:
    """Writes the name that the engine knows the model by."""
    return add_members(layout, f'"model":{json.dumps(served)}')


def cap_output(layout: BodyLayout, tokens: int) -> tuple[Splice, ...]:
    """Holds every output limit of the body to `tokens`, and inserts `max_tokens` where it has none.

    A limit that is lower already stays as it is.
    """
    limits = [member for name in OUTPUT_LIMIT_MEMBERS if (member := layout.find(name))]
    if not limits:
        return add_members(layout, f'"max_tokens":{tokens}')
    higher = [member for member in limits if member.number is None or member.number > tokens]
    return combine(_replacement(member, str(tokens)) for member in higher)


def remove_hints(layout: BodyLayout) -> tuple[Splice, ...]:
    """Takes our own member out, with its comma."""
    for index, member in enumerate(layout.members):
        if member.name != HINTS_MEMBER:
            continue
        if index + 1 < len(layout.members):
            return (Splice(member.start, layout.members[index + 1].start - member.start, ""),)
        start = layout.members[index - 1].value_end if index else member.start
        return (Splice(start, member.value_end - start, ""),)
    return ()


def add_members(layout: BodyLayout, members: str) -> tuple[Splice, ...]:
    """Sets members, given as JSON text without the braces: replaces those the body has and inserts the rest.

    Raises:
        InternalError: `members` is not the inside of a JSON object, or the body has no member.
    """
    if not layout.members:  # what passed inspection has a model, and a comma after an insertion is right
        raise InternalError("a body without members cannot be rewritten")
    splices: list[Splice] = []
    for name, value in _parsed(members).items():
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        if member := layout.find(name):
            splices.append(_replacement(member, text))
        else:
            splices.append(Splice(layout.open_end, 0, f"{json.dumps(name)}:{text},"))
    return combine(splices)


def combine(*groups: Iterable[Splice]) -> tuple[Splice, ...]:
    """All splices in order of offset, those that touch joined into one.

    Raises:
        InternalError: two of them overlap.
    """
    joined: list[Splice] = []
    # An insertion goes before a removal at the same place; insertions keep the order in which they were given.
    for splice in sorted((splice for group in groups for splice in group), key=lambda item: (item.offset, item.length)):
        last = joined[-1] if joined else None
        if last is None or splice.offset > last.offset + last.length:
            joined.append(splice)
        elif splice.offset < last.offset + last.length:
            raise InternalError(f"splices overlap at byte {splice.offset}")
        else:
            joined[-1] = Splice(last.offset, last.length + splice.length, last.text + splice.text)
    return tuple(joined)


def apply(body: bytes, splices: Iterable[Splice]) -> bytes:
    """`body` with every splice made: what Envoy does, written down once more as its reference.

    Raises:
        InternalError: the splices are not in order, overlap, or reach past the end.
    """
    pieces: list[bytes] = []
    at = 0
    for splice in splices:
        if not at <= splice.offset <= splice.offset + splice.length <= len(body):
            raise InternalError(f"splice at byte {splice.offset} does not fit a body of {len(body)} bytes")
        pieces += [body[at : splice.offset], splice.text.encode()]
        at = splice.offset + splice.length
    return b"".join([*pieces, body[at:]])


def _replacement(member: MemberSpan, text: str) -> Splice:
    return Splice(member.value_start, member.value_end - member.value_start, text)


def _parsed(members: str) -> Mapping[str, object]:
    try:
        parsed: dict[str, object] = json.loads("{" + members + "}")
    except ValueError as error:
        raise InternalError(f"members to add are not JSON: {error}") from None
    return parsed
