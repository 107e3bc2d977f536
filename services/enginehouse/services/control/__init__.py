"""The control process: resources, the ledger, and desired state."""

from enginehouse.services.control.access_logs import LineReader
from enginehouse.services.control.allowances import Now
from enginehouse.services.control.bootstrap import DeclaredResources
from enginehouse.services.control.clock import Clock, SystemClock
from enginehouse.services.control.control import Control, Started
from enginehouse.services.control.doubt import Resolved
from enginehouse.services.control.events import EventSink
from enginehouse.services.control.publisher import DesiredStore
from enginehouse.services.control.settings import ControlSettings

__all__ = [
    "Clock",
    "Control",
    "ControlSettings",
    "DeclaredResources",
    "DesiredStore",
    "EventSink",
    "LineReader",
    "Now",
    "Resolved",
    "Started",
    "SystemClock",
]
