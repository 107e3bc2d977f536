"""SGLang, as of 0.5.23."""

from enginehouse.engines.emulators.sglang.emulation import SglangEmulation

__all__ = ["SglangEmulation"]
