"""What the emulated engines have in common: a stand-in for their program, and the emulator behind it."""

from pathlib import Path
from typing import ClassVar

from enginehouse.engines.emulators import EmulatorOptions, make_emulation
from enginehouse.v1 import admin_pb2
from tests.conformance.engines.shim import write_program
from tests.conformance.engines.subject import Running, Subject

# So that a long answer takes seconds, and can be met while it is under way.
_DECODE_RATE = 40.0


class Emulated(Subject):
    """An emulator under the engine's own command line.

    Attributes:
        emulator: kind of `enginehouse engine emulate`.
        program: name of the engine's program.
        has_model_file: its model is a file, not a folder.
    """

    is_real = False
    emulator: ClassVar[str]
    program: ClassVar[str]
    has_model_file: ClassVar[bool] = False

    def model(self, folder: Path) -> str:
        """An empty model: nobody reads it."""
        path = folder / "model"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.has_model_file:
            path.touch()
        else:
            path.mkdir(exist_ok=True)
        return str(path)

    def settings(self, folder: Path) -> admin_pb2.EngineSettings:
        """As the engine's, with the stand-in for its program."""
        settings = super().settings(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings.program = str(write_program(folder / self.program, self.emulator, decode_rate=_DECODE_RATE))
        return settings

    async def version(self, running: Running) -> str:
        """Of the engine whose published API is followed."""
        return make_emulation(self.emulator, EmulatorOptions()).version
