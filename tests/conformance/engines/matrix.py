"""Makes docs/engines.md: ``python -m tests.conformance.engines.matrix``.

The results of the last runs, below build/, replace those recorded before; engines that did not run keep theirs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jinja2

from tests.conformance.engines.columns import GROUPS, MEANINGS, Column
from tests.conformance.engines.results import BUILD_FOLDER, RECORDED_FOLDER, EngineResult, read, write

PAGE = Path(__file__).parents[3] / "docs" / "engines.md"
_TEMPLATE = Path(__file__).with_name("page.md.j2")


class Notes:
    """Reasons by number, in the order in which they are first met; the same reason has one number."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def cell(self, row: EngineResult, column: Column) -> str:
        """What a cell says."""
        finding = row.cells[column]
        if not finding.reason:
            return finding.result.value
        if finding.reason not in self.reasons:
            self.reasons.append(finding.reason)
        return f"{finding.result.value} ({self.reasons.index(finding.reason) + 1})"


def rendered(rows: Sequence[EngineResult]) -> str:
    """The page."""
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 (Markdown, of our own words)
    )
    notes = Notes()
    template = environment.from_string(_TEMPLATE.read_text())
    return template.render(rows=rows, groups=GROUPS, meanings=MEANINGS, cell=notes.cell, notes=notes.reasons)


def record(results: Path, recorded: Path) -> None:
    """Takes over the results of the last runs."""
    for row in read(results):
        write(row, recorded)


def main() -> None:
    """Records, and writes the page."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.engines.matrix", description="Makes docs/engines.md."
    )
    parser.add_argument("--results", type=Path, default=BUILD_FOLDER, help="folder of the last runs")
    record(parser.parse_args().results, RECORDED_FOLDER)
    PAGE.write_text(rendered(read(RECORDED_FOLDER)))


if __name__ == "__main__":
    main()
