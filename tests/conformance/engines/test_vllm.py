"""vLLM, real and emulated: HTTP, gRPC, and pooling."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from enginehouse.v1 import admin_pb2
from tests.conformance.engines.by_grpc import NO_GUIDED_DECODING, AskedByGrpc, EmulatedByGrpc
from tests.conformance.engines.columns import Column
from tests.conformance.engines.embedding import Embeds, no_generation
from tests.conformance.engines.emulated import Emulated
from tests.conformance.engines.installed import Installed
from tests.conformance.engines.subject import Refusal, Running, Subject
from tests.conformance.engines.suite import ConformanceSuite

_GENERATES = Refusal("vLLM runs one model; this one generates")


class Vllm(Subject):
    """vLLM with a model that generates, over HTTP."""

    title = "vLLM, HTTP"
    kind = "vllm"
    refused: ClassVar[Mapping[Column, Refusal]] = {Column.EMBEDDINGS: _GENERATES, Column.RERANK: _GENERATES}
    # Without a parser it takes no tools.
    arguments: ClassVar[tuple[str, ...]] = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")

    def settings(self, folder: Path) -> admin_pb2.EngineSettings:
        """With the arguments."""
        settings = super().settings(folder)
        settings.arguments.extend(self.arguments)
        return settings


class VllmGrpc(AskedByGrpc, Vllm):
    """vLLM with a model that generates, over gRPC."""

    title = "vLLM, gRPC"
    api = admin_pb2.ENGINE_API_GRPC
    generate_method = "/vllm.grpc.engine.VllmEngine/Generate"
    refused: ClassVar[Mapping[Column, Refusal]] = {
        **Vllm.refused,
        Column.TOOLS: Refusal("vLLM's gRPC service answers in tokens; the parsers of calls are its HTTP server's"),
    }
    arguments = ()


class VllmOnCpus(Installed):
    """The wheel for CPUs."""

    installed_as = "vllm"

    def settings(self, folder: Path) -> admin_pb2.EngineSettings:
        """As small as it gets."""
        settings = super().settings(folder)
        settings.program = str(self.installed("venv/bin/vllm"))
        settings.arguments.extend(["--dtype", "bfloat16", "--enforce-eager"])
        settings.environment.update({"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"})
        settings.threads = 2
        return settings

    async def version(self, running: Running) -> str:
        """Of the package."""
        return await self.version_of("vllm")


class TestVllmEmulated(Vllm, Emulated, ConformanceSuite):
    """Its emulator, over HTTP."""

    emulator = "vllm"
    program = "vllm"
    not_shown: ClassVar[Mapping[Column, str]] = {Column.TOOLS: "the emulator calls no tools"}


class TestVllmGrpcEmulated(EmulatedByGrpc, VllmGrpc, Emulated, ConformanceSuite):
    """Its emulator, over gRPC."""

    emulator = "vllm"
    program = "vllm"
    not_shown: ClassVar[Mapping[Column, str]] = {Column.SCHEMA: NO_GUIDED_DECODING}


class TestVllm(Vllm, VllmOnCpus, ConformanceSuite):
    """The real one, over HTTP."""


class TestVllmGrpc(VllmGrpc, VllmOnCpus, ConformanceSuite):
    """The real one, over gRPC."""


class TestVllmPooling(Embeds, VllmOnCpus, ConformanceSuite):
    """The real one with a model that embeds."""

    title = "vLLM, pooling"
    kind = "vllm"
    context_tokens = 256  # what the model was made for
    refused: ClassVar[Mapping[Column, Refusal]] = {
        **no_generation("vLLM runs one model; this one embeds"),
        Column.TOKEN_COUNT: Refusal("vLLM counts tokens of a conversation with a chat template; this model has none"),
    }

    def model(self, folder: Path) -> str:
        """MiniLM."""
        return str(self.installed("embedding-model"))

    def settings(self, folder: Path) -> admin_pb2.EngineSettings:
        """Told that it embeds."""
        settings = super().settings(folder)
        settings.arguments.extend(["--runner", "pooling"])
        return settings
