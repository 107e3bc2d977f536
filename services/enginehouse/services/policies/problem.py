"""What is wrong with a policy, and where in its message."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from enginehouse.contract import RequestError

Path: TypeAlias = tuple[str | int, ...]
"""Field names, map keys and indices from the top of a message, for example ("rules", 0, "policy", "models", 1)."""

_SHOWN_MAX = 10
_CHARACTERS_MAX = 300
_LINE = re.compile(r"([a-z_]+(?:\.[a-z0-9_-]+|\[\d+\])*): (.+)", re.DOTALL)
_STEP = re.compile(r"\[(\d+)\]|\.?([a-z0-9_-]+)")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        path: where.
        message: the value, and what was expected.
    """

    path: Path
    message: str

    def __str__(self) -> str:
        written = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        text = f"{written.removeprefix('.')}: {self.message}"
        return text if len(text) <= _CHARACTERS_MAX else text[: _CHARACTERS_MAX - 3] + "..."


def read_problem(line: str) -> Problem | None:
    """Reads what `Problem` writes. None when the line is something else."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    steps = _STEP.findall(match[1])
    return Problem(tuple(int(index) if index else name for index, name in steps), match[2])


class InvalidPolicyError(RequestError):
    """A policy is refused; the one before it stays in force.

    Args:
        name: whose policy: "policies/default", or a tenant.
        lines: everything that is wrong, a line each. An answer has room for the first few.
    """

    def __init__(self, name: str, lines: Sequence[str]) -> None:
        more = len(lines) - _SHOWN_MAX
        self.name = name
        self.lines = (*lines[:_SHOWN_MAX], *([f"and {more} more"] if more > 0 else []))
        super().__init__("\n".join(self.lines))

    @classmethod
    def of(cls, name: str, problems: Sequence[Problem]) -> Self:
        """The error for these problems."""
        return cls(name, [str(problem) for problem in problems])
