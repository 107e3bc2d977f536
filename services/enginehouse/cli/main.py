"""The `enginehouse` command."""

import os
import sys

from enginehouse.contract import EnginehouseError
from rich.console import Console

EXIT_FAILED = 1
# gRPC reads these when it is imported. Its fork handlers are for programs that fork without exec, which none of ours
# does, and they would write a line to standard error for every process that is started.
_GRPC = {"GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "ERROR"}


def main() -> None:
    """Runs the command. An error that a user can do something about is one message, without a traceback."""
    for name, value in _GRPC.items():
        os.environ.setdefault(name, value)
    from enginehouse.cli.app import app

    try:
        app()
    except EnginehouseError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error.message}", markup=False)
        sys.exit(EXIT_FAILED)
