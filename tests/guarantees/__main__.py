"""Runs one configuration, or all: `python -m tests.guarantees --routers 3 --requests 100 --database sqlite`."""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tests.guarantees.configuration import Configuration, Database, Kill, MeshKind, every_configuration
from tests.guarantees.report import console_line, console_title, written
from tests.guarantees.run import Row
from tests.guarantees.series import run_series


def main() -> int:
    """Prints a row for each run. The exit code is 1 when a guarantee is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.guarantees", description="Measures the guarantees.")
    parser.add_argument("--routers", type=int, default=1)
    parser.add_argument("--requests", type=int, help="at once; without it everything is run")
    parser.add_argument("--database", choices=[one.value for one in Database], default=Database.SQLITE.value)
    parser.add_argument("--kill", choices=[one.value for one in Kill], default=Kill.NOTHING.value)
    parser.add_argument("--report", type=Path, help="file that the table is written into, as Markdown")
    arguments = parser.parse_args()
    series = every_configuration()
    if arguments.requests is not None:
        mesh = MeshKind(Database(arguments.database), arguments.routers)
        series = {mesh: [Configuration(mesh, arguments.requests, Kill(arguments.kill))]}
    _say(console_title())
    rows: list[Row] = []
    begin_s = time.monotonic()
    for mesh, configurations in series.items():
        for row in asyncio.run(run_series(mesh, configurations)):
            _say(console_line(row))
            rows.append(row)
    if arguments.report is not None:
        arguments.report.write_text(written(rows, (time.monotonic() - begin_s) / 60))
    return 1 if any(row.faults for row in rows) else 0


def _say(line: str) -> None:
    """Prints a line at once: a series takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
