"""TensorRT-LLM's gRPC service, `trtllm-serve --grpc`."""

from enginehouse.adapters.tensorrt_llm_grpc.client import TensorRtLlmGrpcEngine

__all__ = ["TensorRtLlmGrpcEngine"]
