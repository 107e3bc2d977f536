"""llama.cpp, through xllamacpp: the embedded engine for text."""

from enginehouse.engines.llama_cpp.descriptor import LlamaCppEngine

__all__ = ["LlamaCppEngine"]
