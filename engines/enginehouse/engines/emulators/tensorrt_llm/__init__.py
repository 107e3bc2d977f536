"""TensorRT-LLM, as of 1.2."""

from enginehouse.engines.emulators.tensorrt_llm.emulation import TensorRtLlmEmulation

__all__ = ["TensorRtLlmEmulation"]
