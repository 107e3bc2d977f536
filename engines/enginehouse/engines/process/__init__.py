"""Child processes: started, drained, watched and ended."""

from enginehouse.engines.process.output import OutputLog
from enginehouse.engines.process.process import ManagedProcess

__all__ = ["ManagedProcess", "OutputLog"]
