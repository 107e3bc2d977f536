"""The measures that rank what the rules left."""

from enginehouse.router.scorers.affinity import AffinityScorer
from enginehouse.router.scorers.chip import ChipScorer
from enginehouse.router.scorers.cost import CostScorer
from enginehouse.router.scorers.quality import QualityScorer
from enginehouse.router.scorers.scorer import Scorer
from enginehouse.router.scorers.wait import WaitScorer

SCORERS: tuple[Scorer, ...] = (CostScorer(), QualityScorer(), WaitScorer(), AffinityScorer(), ChipScorer())

__all__ = [
    "SCORERS",
    "AffinityScorer",
    "ChipScorer",
    "CostScorer",
    "QualityScorer",
    "Scorer",
    "WaitScorer",
]
