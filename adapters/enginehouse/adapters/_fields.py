"""Members of a JSON object taken by name and type; whatever does not fit is refused with its path."""

import math
from collections.abc import Iterable, Mapping, Sequence

from enginehouse.contract import Reason, RequestError

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
_SHOWN_CHARACTERS_MAX = 40


def describe(value: object) -> str:
    """What `value` is, in a few words that never hold a prompt: strings are only measured."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)[:_SHOWN_CHARACTERS_MAX]
        case str():
            return f"a string of {len(value)} characters"
        case list():
            return f"a list of {len(value)}"
        case _:
            return "an object"


def malformed(path: str, value: object, expected: str) -> RequestError:
    """The error for a member that has the wrong type or value."""
    return RequestError(f"{path} is {describe(value)}; expected {expected}", metadata={"field": path})


def unfit(path: str, name: str, expected: str) -> RequestError:
    """The error for a name or a word that does not fit; it is quoted, so it must be no prompt."""
    return RequestError(f"{path} is {shown(name)}; expected {expected}", metadata={"field": path})


def missing(path: str, expected: str) -> RequestError:
    """The error for a member that must be there and is not."""
    return RequestError(f"{path} is missing; expected {expected}", metadata={"field": path})


def unsupported(path: str, advice: str) -> RequestError:
    """The error for a member that is understood by nobody, or not by us."""
    return RequestError(f"{path} is not supported: {advice}", Reason.UNSUPPORTED_FIELD, metadata={"field": path})


def shown(text: str) -> str:
    """A short name out of a request, quoted for a message."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "...")


def as_text(value: object, path: str) -> str:
    """`value`, which must be a string."""
    if not isinstance(value, str):
        raise malformed(path, value, "a string")
    return value


def as_choice(value: object, path: str, choices: Sequence[str]) -> str:
    """`value`, which must be one of a few words."""
    if not isinstance(value, str):
        raise malformed(path, value, f"one of {', '.join(choices)}")
    if value not in choices:
        raise unfit(path, value, f"one of {', '.join(choices)}")
    return value


def as_whole(value: object, path: str, minimum: int, maximum: int = INT32_MAX) -> int:
    """`value`, which must be a whole number within both bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise malformed(path, value, f"a whole number from {minimum} to {maximum}")
    return value


def as_number(value: object, path: str) -> float:
    """`value`, which must be a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise malformed(path, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        raise malformed(path, value, "a number that fits 64 bits") from None
    if not math.isfinite(number):
        raise malformed(path, value, "a finite number")
    return number


def as_flag(value: object, path: str) -> bool:
    """`value`, which must be true or false."""
    if not isinstance(value, bool):
        raise malformed(path, value, "true or false")
    return value


def as_list(value: object, path: str) -> list[object]:
    """`value`, which must be a list."""
    if not isinstance(value, list):
        raise malformed(path, value, "a list")
    return value


def as_object(value: object, path: str) -> dict[str, object]:
    """`value`, which must be an object."""
    if not isinstance(value, dict):
        raise malformed(path, value, "an object")
    return value


def as_texts(value: object, path: str) -> list[str]:
    """`value`, which must be a list of strings."""
    return [as_text(item, f"{path}[{index}]") for index, item in enumerate(as_list(value, path))]


class Fields:
    """One JSON object, taken apart by name; `finish` refuses what nobody took. Null counts as absent.

    Args:
        members: the object.
        path: where it is in the body, for messages. Empty: it is the body.
    """

    def __init__(self, members: Mapping[str, object], path: str = "") -> None:
        self._left = {name: value for name, value in members.items() if value is not None}
        self._prefix = f"{path}." if path else ""

    @classmethod
    def of(cls, value: object, path: str) -> "Fields":
        """The fields of `value`, which must be an object."""
        return cls(as_object(value, path), path)

    def path(self, name: str) -> str:
        """Where a member is, for messages."""
        return self._prefix + name

    def take(self, name: str) -> object:
        """The value as it is; None when absent."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        """A string, if it is there."""
        value = self.take(name)
        return None if value is None else as_text(value, self.path(name))

    def required_text(self, name: str, expected: str) -> str:
        """A string that must be there and hold something."""
        value = self.text(name)
        if not value:
            raise missing(self.path(name), expected)
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """One of a few words, if it is there."""
        value = self.take(name)
        return None if value is None else as_choice(value, self.path(name), choices)

    def whole(self, name: str, minimum: int, maximum: int = INT32_MAX) -> int | None:
        """A whole number within bounds, if it is there."""
        value = self.take(name)
        return None if value is None else as_whole(value, self.path(name), minimum, maximum)

    def number(self, name: str) -> float | None:
        """A finite number, if it is there."""
        value = self.take(name)
        return None if value is None else as_number(value, self.path(name))

    def flag(self, name: str) -> bool | None:
        """True or false, if it is there."""
        value = self.take(name)
        return None if value is None else as_flag(value, self.path(name))

    def items(self, name: str) -> list[object] | None:
        """A list, if it is there."""
        value = self.take(name)
        return None if value is None else as_list(value, self.path(name))

    def members(self, name: str) -> dict[str, object] | None:
        """An object, if it is there."""
        value = self.take(name)
        return None if value is None else as_object(value, self.path(name))

    def ignore(self, names: Iterable[str]) -> None:
        """Takes members that change nothing in an answer."""
        for name in names:
            self._left.pop(name, None)

    def refuse_unless(self, name: str, harmless: Sequence[object], advice: str) -> None:
        """Takes a member that is fine with one of a few values, and not supported with any other."""
        value = self.take(name)
        if value is not None and not any(type(value) is type(item) and value == item for item in harmless):
            raise unsupported(self.path(name), advice)

    def finish(self) -> None:
        """Refuses the first member that nobody took.

        Raises:
            RequestError: UNSUPPORTED_FIELD, naming it.
        """
        for name in self._left:
            path = self.path(name if len(name) <= _SHOWN_CHARACTERS_MAX else name[:_SHOWN_CHARACTERS_MAX] + "...")
            raise unsupported(path, "no engine behind this door understands it; leave it out")
