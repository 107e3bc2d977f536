"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The settings. Without it ./enginehouse.yaml, or else the default that is shipped."),
]
StateOption = Annotated[
    Path | None, typer.Option("--state", help="The folder in which the mesh keeps everything. Default: .enginehouse")
]
PortOption = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="The port that clients use.")]

STATE_DEFAULT = Path(".enginehouse")


def flags(state: Path | None, port: int | None) -> dict[str, object]:
    """What was given on the command line, as the settings nest it."""
    given: dict[str, object] = {}
    if state is not None:
        given["state"] = state
    if port is not None:
        given["door"] = {"port": port}
    return given
