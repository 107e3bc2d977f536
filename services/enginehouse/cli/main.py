"""The `enginehouse` command."""

import os
import sys
from collections.abc import Callable

from enginehouse.contract import EnginehouseError

EXIT_FAILED = 1
# gRPC reads these when it is imported. Its fork handlers are for programs that fork without exec, which none of ours
# does, and they would write a line to standard error for every process that is started.
_GRPC = {"GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "ERROR"}


def main() -> None:
    """Runs the command with its subcommands."""

    def run() -> None:
        from enginehouse.cli.app import app
        from enginehouse.services.telemetry.logs import configure_logs

        configure_logs("warning", "console")  # until a command knows better: standard output is for answers
        app()

    run_command(run)


def run_command(run: Callable[[], None]) -> None:
    """Runs a command. An error that a user can do something about is one message, without a traceback."""
    for name, value in _GRPC.items():
        os.environ.setdefault(name, value)
    try:
        run()
    except EnginehouseError as error:
        print(f"error: {error.message}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
