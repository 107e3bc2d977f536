"""vLLM, by its own command."""

from enginehouse.engines.vllm.descriptor import VllmEngine

__all__ = ["VllmEngine"]
