"""MLX, real and emulated."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from enginehouse.v1 import admin_pb2
from tests.conformance.engines.columns import Column
from tests.conformance.engines.emulated import Emulated
from tests.conformance.engines.installed import Installed
from tests.conformance.engines.subject import Refusal, RefusedBy, Running, Subject
from tests.conformance.engines.suite import ConformanceSuite

_GENERATES = Refusal("mlx_lm.server generates and nothing else")


class Mlx(Subject):
    """mlx_lm.server."""

    title = "MLX"
    kind = "mlx"
    refused: ClassVar[Mapping[Column, Refusal]] = {
        Column.TOOLS: Refusal("mlx_lm.server drops tools silently where it cannot tell how the model calls them"),
        Column.SCHEMA: Refusal("mlx_lm.server has no guided decoding"),
        Column.LOGPROBS: Refusal("mlx_lm.server leaves log probabilities out of streams"),
        Column.LONG_PROMPT: Refusal(
            "mlx_lm.server bounds no prompt; the router holds context_tokens_max", RefusedBy.ROUTER
        ),
        Column.CHOICES: Refusal("mlx_lm.server answers with one choice, whatever `n` is"),
        Column.EMBEDDINGS: _GENERATES,
        Column.RERANK: _GENERATES,
        Column.TOKEN_COUNT: Refusal("mlx_lm.server has no route that counts tokens"),
        Column.METRICS: Refusal("mlx_lm.server has no metrics"),
    }
    remarks: ClassVar[Mapping[Column, str]] = {
        Column.STOP: "mlx_lm.server compares stop sequences token by token: one that begins within a token is not met"
    }
    parallel = 2


class TestMlxEmulated(Mlx, Emulated, ConformanceSuite):
    """Its emulator."""

    emulator = "mlx"
    program = "mlx_lm.server"


class TestMlx(Mlx, Installed, ConformanceSuite):
    """The real one, on CPUs."""

    installed_as = "mlx"
    tokens = 4

    def settings(self, folder: Path) -> admin_pb2.EngineSettings:
        """With its program."""
        settings = super().settings(folder)
        settings.program = str(self.installed("venv/bin/mlx_lm.server"))
        return settings

    async def version(self, running: Running) -> str:
        """Of the package."""
        return await self.version_of("mlx-lm")
