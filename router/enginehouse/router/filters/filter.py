"""What a filter is."""

from typing import Protocol

from enginehouse.contract import Reason
from enginehouse.router.question import Option, Question


class Filter(Protocol):
    """Drops candidates that break one rule. Pure: the same option and question give the same answer."""

    @property
    def name(self) -> str:
        """The rule's name, as explanations and refusals give it."""
        ...

    @property
    def refusal(self) -> Reason:
        """What the caller is told when this rule dropped the last candidate."""
        ...

    def drop(self, option: Option, question: Question) -> str | None:
        """Why the option is dropped, in words that the caller may read; None keeps it."""
        ...
