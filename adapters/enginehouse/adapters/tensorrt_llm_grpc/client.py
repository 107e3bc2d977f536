"""One engine that speaks TensorRT-LLM's gRPC service, asked in canonical words."""

from enginehouse.adapters._token_engine import TokenEngine
from enginehouse.adapters.tensorrt_llm_grpc.dialect import TensorRtLlmDialect


class TensorRtLlmGrpcEngine(TokenEngine):
    """One TensorRT-LLM that was started with `--grpc`. Its method `Embed` does nothing yet, so embedding is refused.

    Args:
        address: host:port.
        connect_timeout_s: for a connection to be made.
        idle_timeout_s: between two messages of an answer, the first included.
    """

    def __init__(self, address: str, *, connect_timeout_s: float = 5.0, idle_timeout_s: float = 300.0) -> None:
        dialect = TensorRtLlmDialect()
        super().__init__(dialect, address, connect_timeout_s=connect_timeout_s, idle_timeout_s=idle_timeout_s)
