"""Engines that are too heavy for every run: `make engines-install ENGINE=...` puts each into a folder of its own."""

import asyncio
from pathlib import Path
from typing import ClassVar

import pytest

from tests.conformance.engines.subject import Subject

_FOLDER = Path(__file__).parents[3] / "build" / "engines"


@pytest.mark.heavy
class Installed(Subject):
    """A real engine below build/engines.

    Attributes:
        installed_as: its folder there.
    """

    installed_as: ClassVar[str]
    start_s = 400.0
    tokens = 8
    parallel = 4

    def installed(self, path: str) -> Path:
        """Something in its folder.

        Args:
            path: for example "venv/bin/vllm".
        """
        found = _FOLDER / self.installed_as / path
        assert found.exists(), f"{found} is missing; run: make engines-install ENGINE={self.installed_as}"
        return found

    async def version_of(self, package: str) -> str:
        """The version of a package, asked of its own interpreter."""
        code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
        process = await asyncio.create_subprocess_exec(
            str(self.installed("venv/bin/python")), "-c", code, package, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        return output.decode().strip()

    def model(self, folder: Path) -> str:
        """SmolLM2, as a folder of Hugging Face's form."""
        return str(self.installed("model"))
