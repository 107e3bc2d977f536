"""What a scorer is."""

from collections.abc import Sequence
from typing import Protocol

from enginehouse.router.policy import Weights
from enginehouse.router.question import Option, Question


class Scorer(Protocol):
    """Ranks the candidates that are left by one measure. Pure."""

    @property
    def name(self) -> str:
        """The measure's name, as explanations give it."""
        ...

    def weight(self, weights: Weights) -> float:
        """How much the measure counts."""
        ...

    def score(self, options: Sequence[Option], question: Question) -> list[float]:
        """One value per option, 0 (worst) to 1 (best)."""
        ...
