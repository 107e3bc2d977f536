"""TGI, as of 3.3.6."""

from enginehouse.engines.emulators.tgi.emulation import TgiEmulation

__all__ = ["TgiEmulation"]
