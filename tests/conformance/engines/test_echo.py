"""The echo engine."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from enginehouse.v1 import admin_pb2
from tests.conformance.engines.columns import Column
from tests.conformance.engines.subject import Refusal, Running
from tests.conformance.engines.suite import ConformanceSuite


class TestEcho(ConformanceSuite):
    """The engine that is part of Enginehouse, without a model."""

    title = "echo"
    kind = "echo"
    refused: ClassVar[Mapping[Column, Refusal]] = {
        Column.TOOLS: Refusal("echo has no model that could call tools"),
        Column.SCHEMA: Refusal("echo says back what it is told, in no other form"),
        Column.LOGPROBS: Refusal("echo has no model, so no probabilities"),
    }

    def settings(self, folder: Path) -> admin_pb2.EngineSettings:
        """At a pace at which a generation can be met while it is under way."""
        settings = super().settings(folder)
        settings.arguments.extend(["--tokens-per-second", "40"])
        return settings

    async def version(self, running: Running) -> str:
        """Enginehouse's own."""
        return metadata.version("enginehouse")
