"""What goes wrong inside an emulated engine, before an engine's own words are put to it."""

from enum import StrEnum


class BrokenBy(StrEnum):
    """Why a generation that had begun does not end."""

    FAULT = "fault"
    SHUTDOWN = "shutdown"
    ABORT = "abort"


class GenerationBroken(Exception):
    """The generation broke down after it was taken on."""

    def __init__(self, cause: BrokenBy) -> None:
        super().__init__(f"the generation was broken by {cause}")
        self.cause = cause


class Overloaded(Exception):
    """As many requests wait already as the engine lets wait."""


class Unavailable(Exception):
    """The engine takes nothing on: it is loading, ending, or told so by a fault."""


class ConnectionCut(Exception):
    """The connection is to be reset, with nothing more said on it."""
