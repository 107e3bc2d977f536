"""Emulated engines: the published APIs of six engines without a model, for tests and for users without a GPU."""

from enginehouse.engines.emulators.core.batch import Pace
from enginehouse.engines.emulators.core.emulation import Emulation
from enginehouse.engines.emulators.core.faults import Fault, FaultKind, parse_fault
from enginehouse.engines.emulators.core.options import EmulatorOptions, Face
from enginehouse.engines.emulators.core.server import running, serve
from enginehouse.engines.emulators.registry import KINDS, make_emulation

__all__ = [
    "KINDS",
    "Emulation",
    "EmulatorOptions",
    "Face",
    "Fault",
    "FaultKind",
    "Pace",
    "make_emulation",
    "parse_fault",
    "running",
    "serve",
]
