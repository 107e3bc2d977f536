"""Decisions made again: as they were, and as other rules would have made them."""

from enginehouse.services.replay.history import History, read_history
from enginehouse.services.replay.report import Comparison, Report, compare

__all__ = ["Comparison", "History", "Report", "compare", "read_history"]
