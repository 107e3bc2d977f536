"""NVIDIA's TensorRT-LLM, by its own command."""

from enginehouse.engines.tensorrt_llm.descriptor import TensorRtLlmEngine

__all__ = ["TensorRtLlmEngine"]
