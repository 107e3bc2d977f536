"""Generates the protobuf code beside its .proto files, before a wheel or an editable install is made.

Run as a script it does the same for a checkout: ``python hatch_build.py``.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_ERROR_DETAILS = ("google/rpc/error_details.proto", "google/rpc/status.proto")


class ProtoBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs protoc over protos/."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before the build."""
        generate(Path(self.root) / "protos")


def googleapis_root() -> Path:
    """The folder that holds google/api/*.proto, as googleapis-common-protos ships it."""
    spec = importlib.util.find_spec("google.api")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("google/api/*.proto not found: install googleapis-common-protos")
    return Path(next(iter(spec.submodule_search_locations))).parents[1]


def generate(root: Path) -> None:
    """Writes Python code, stubs and the descriptor set that Envoy's transcoder reads, below `root`.

    The set holds the details of errors too: a status whose details it cannot read, the transcoder leaves empty.
    """
    import grpc_tools
    from grpc_tools import protoc

    package = root / "enginehouse" / "v1"
    files = [str(path.relative_to(root)) for path in sorted(package.glob("*.proto"))]
    includes = [
        "protoc",
        f"-I{root}",
        f"-I{googleapis_root()}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
    ]
    arguments = [
        *includes,
        f"--python_out={root}",
        f"--grpc_python_out={root}",
        f"--mypy_out={root}",
        f"--mypy_grpc_out={root}",
        *files,
    ]
    descriptors = [f"--descriptor_set_out={package / 'descriptors.binpb'}", "--include_imports"]
    if protoc.main(arguments) != 0 or protoc.main([*includes, *descriptors, *files, *_ERROR_DETAILS]) != 0:
        sys.exit("protoc failed")


if __name__ == "__main__":
    generate(Path(__file__).parent / "protos")
