"""SGLang's emulator."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from enginehouse.v1 import admin_pb2
from tests.conformance.engines.columns import Column
from tests.conformance.engines.emulated import Emulated
from tests.conformance.engines.subject import Refusal
from tests.conformance.engines.suite import ConformanceSuite

_GENERATES = Refusal("SGLang runs one model; this one generates")


class TestSglangEmulated(Emulated, ConformanceSuite):
    """`python -m sglang.launch_server`."""

    title = "SGLang"
    kind = "sglang"
    emulator = "sglang"
    program = "python3"
    refused: ClassVar[Mapping[Column, Refusal]] = {
        Column.EMBEDDINGS: _GENERATES,
        Column.RERANK: _GENERATES,
        Column.TOKEN_COUNT: Refusal("SGLang has no route that counts the tokens of a conversation"),
    }
    not_shown: ClassVar[Mapping[Column, str]] = {Column.TOOLS: "the emulator calls no tools"}

    def settings(self, folder: Path) -> admin_pb2.EngineSettings:
        """With a parser of tool calls, without which it takes none."""
        settings = super().settings(folder)
        settings.arguments.extend(["--tool-call-parser", "qwen25"])
        return settings
