"""vLLM's gRPC service, `vllm serve --grpc`."""

from enginehouse.adapters.vllm_grpc.client import VllmGrpcEngine

__all__ = ["VllmGrpcEngine"]
