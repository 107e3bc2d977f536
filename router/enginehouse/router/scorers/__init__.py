"""The measures that rank what the rules left; each is between 0 (worst) and 1 (best)."""

from enginehouse.router.scorers.affinity import affinity_score
from enginehouse.router.scorers.cost import cost_score
from enginehouse.router.scorers.preference import chip_score, quality_score
from enginehouse.router.scorers.wait import predicted_wait_s, wait_score

SCORERS = ("cost", "quality", "wait", "affinity", "chip")
"""Their names, in the order in which a verdict lists them."""

__all__ = [
    "SCORERS",
    "affinity_score",
    "chip_score",
    "cost_score",
    "predicted_wait_s",
    "quality_score",
    "wait_score",
]
