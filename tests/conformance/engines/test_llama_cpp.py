"""llama.cpp through xllamacpp."""

from importlib import metadata
from pathlib import Path

from tests.conformance.engines.llama import LlamaCpp
from tests.conformance.engines.subject import Running
from tests.conformance.engines.suite import ConformanceSuite


class TestLlamaCpp(LlamaCpp, ConformanceSuite):
    """The embedded engine for text."""

    title = "llama.cpp, xllamacpp"
    kind = "llama-cpp"

    def model(self, folder: Path) -> str:
        """The one that Enginehouse can fetch by itself."""
        return "builtin:smollm2"

    async def version(self, running: Running) -> str:
        """Of the package."""
        return f"xllamacpp {metadata.version('xllamacpp')}"
