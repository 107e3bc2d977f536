"""llama.cpp's own server, as of 2026-10 (b11549)."""

from enginehouse.engines.emulators.llama_cpp.emulation import LlamaCppEmulation

__all__ = ["LlamaCppEmulation"]
