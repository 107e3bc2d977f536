"""TensorRT-LLM's emulator: HTTP, and gRPC."""

from collections.abc import Mapping
from typing import ClassVar

from enginehouse.v1 import admin_pb2
from tests.conformance.engines.by_grpc import NO_GUIDED_DECODING, AskedByGrpc, EmulatedByGrpc
from tests.conformance.engines.columns import Column
from tests.conformance.engines.emulated import Emulated
from tests.conformance.engines.subject import Refusal, RefusedBy
from tests.conformance.engines.suite import ConformanceSuite

_GENERATES = Refusal("trtllm-serve generates and nothing else")


class TensorRtLlm(Emulated):
    """trtllm-serve, over HTTP."""

    kind = "tensorrt-llm"
    emulator = "tensorrt-llm"
    program = "trtllm-serve"
    other_names = ("TensorRT-LLM",)
    refused: ClassVar[Mapping[Column, Refusal]] = {
        Column.TOOLS: Refusal(
            "trtllm-serve parses the tool calls of a few models alone, and nothing says which", RefusedBy.ROUTER
        ),
        Column.CHOICES: Refusal(
            "the documents of trtllm-serve do not say that usage covers several choices", RefusedBy.ROUTER
        ),
        Column.EMBEDDINGS: _GENERATES,
        Column.RERANK: _GENERATES,
        Column.TOKEN_COUNT: Refusal("trtllm-serve has no route that counts tokens"),
    }


class TestTensorRtLlmEmulated(TensorRtLlm, ConformanceSuite):
    """Over HTTP."""

    title = "TensorRT-LLM, HTTP"


class TestTensorRtLlmGrpcEmulated(EmulatedByGrpc, AskedByGrpc, TensorRtLlm, ConformanceSuite):
    """Over gRPC."""

    title = "TensorRT-LLM, gRPC"
    api = admin_pb2.ENGINE_API_GRPC
    generate_method = "/trtllm.TrtllmService/Generate"
    refused: ClassVar[Mapping[Column, Refusal]] = {
        Column.TOOLS: Refusal(
            "TensorRT-LLM's gRPC service answers in tokens; the parsers of calls are its HTTP server's"
        ),
        Column.EMBEDDINGS: _GENERATES,
        Column.RERANK: _GENERATES,
        Column.METRICS: Refusal("TensorRT-LLM's gRPC service tells nothing of its load"),
    }
    not_shown: ClassVar[Mapping[Column, str]] = {Column.SCHEMA: NO_GUIDED_DECODING}
