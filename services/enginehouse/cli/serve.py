"""`enginehouse serve`: one process of the mesh, as a service manager would run it.

Also a program of its own, ``python -m enginehouse.cli.serve``, which imports nothing that the process does not need.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from enginehouse.cli.main import run_command
from enginehouse.cli.options import ConfigOption
from enginehouse.services.processes import make_process, start_process_telemetry
from enginehouse.services.runner import run_process
from enginehouse.services.settings import find_file, load
from enginehouse.services.telemetry.logs import configure_logs


def serve(
    kind: Annotated[str, typer.Argument(help="control, router, node or gateway.")],
    name: Annotated[str, typer.Option(help="Which router or node of the settings.")] = "",
    config: ConfigOption = None,
    admin_key_file: Annotated[
        Path | None, typer.Option(help="Where control writes the first admin key instead of printing it.")
    ] = None,
) -> None:
    """Run one process until SIGTERM or SIGINT."""
    settings = load(find_file(config))
    configure_logs(settings.telemetry.log_level, settings.telemetry.log_format)
    start_process_telemetry(kind, settings, name)

    def say_admin_key(key: str) -> None:
        if admin_key_file is None:
            print(f"admin key, shown this once: {key}", flush=True)
        else:
            admin_key_file.touch(mode=0o600)
            admin_key_file.write_text(key)

    sys.exit(run_process(lambda: make_process(kind, settings, name, say_admin_key)))


if __name__ == "__main__":
    run_command(lambda: typer.run(serve))
