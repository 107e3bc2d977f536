"""A JSON body under inspection, the same for every JSON dialect."""

from collections.abc import Callable, Mapping

from enginehouse.adapters._fields import INT32_MAX, as_flag, as_text, as_whole, malformed, missing
from enginehouse.adapters._json import parse_object
from enginehouse.adapters._meter import PromptMeter
from enginehouse.adapters._refused import refuse_engine_members
from enginehouse.adapters.canonical import MODEL_CHARACTERS_MAX
from enginehouse.adapters.hints import combine_hints, hints_from_headers, hints_from_member
from enginehouse.adapters.splices import HINTS_MEMBER

# Adds one part of a message, found at a path, to a meter.
PartCounter = Callable[[PromptMeter, dict[str, object], str], None]


class Body:
    """A parsed body with its nulls taken out, its hints, and the meter for its prompt.

    Args:
        body: as received, decompressed.
        headers: names in lower case.

    Raises:
        RequestError: it is not one JSON object, has a hint that is none, or a member that no body may hold.
    """

    def __init__(self, body: bytes, headers: Mapping[str, str]) -> None:
        document = parse_object(body)
        self.layout = document.layout
        self.members = {name: value for name, value in document.members.items() if value is not None}
        refuse_engine_members(self.members)
        self.meter = PromptMeter()
        hints = hints_from_member(self.members.get(HINTS_MEMBER, {}))
        self.hints = combine_hints(hints, hints_from_headers(headers))

    def required(self, name: str, expected: str) -> object:
        """The member's value, which must be there."""
        value = self.members.get(name)
        if value is None:
            raise missing(name, expected)
        return value

    def model(self) -> str:
        """The name of the model."""
        model = as_text(self.required("model", "the name of a model"), "model")
        if not 1 <= len(model) <= MODEL_CHARACTERS_MAX:
            raise malformed("model", model, f"1 to {MODEL_CHARACTERS_MAX} characters")
        return model

    def whole(self, name: str, minimum: int, maximum: int = INT32_MAX) -> int | None:
        """A whole number within bounds, if it is there."""
        value = self.members.get(name)
        return None if value is None else as_whole(value, name, minimum, maximum)

    def flag(self, name: str) -> bool:
        """True only if the member is there and true."""
        value = self.members.get(name)
        return value is not None and as_flag(value, name)

    def count_rest(self, known: frozenset[str]) -> None:
        """Counts every member that is not in `known` as text that the model may see."""
        for name, value in self.members.items():
            if name not in known:
                self.meter.rendered({name: value})


def count_content(meter: PromptMeter, content: object, path: str, count_part: PartCounter) -> None:
    """Counts a message's content: nothing, a string, or a list of parts.

    Raises:
        RequestError: it is none of these, or a part does not fit.
    """
    if content is None:
        return
    if isinstance(content, str):
        meter.text(content)
        return
    if not isinstance(content, list):
        raise malformed(path, content, "a string or a list of parts")
    for index, part in enumerate(content):
        where = f"{path}[{index}]"
        if not isinstance(part, dict):
            raise malformed(where, part, "an object")
        count_part(meter, part, where)
