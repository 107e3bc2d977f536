"""Results of the suite: from the tests to files, one for each engine."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from tests.conformance.engines.case import Result
from tests.conformance.engines.columns import Column

PROPERTY = "conformance"
_ROOT = Path(__file__).parents[3]
BUILD_FOLDER = _ROOT / "build" / "conformance"
"""Where each run leaves its results."""
RECORDED_FOLDER = Path(__file__).parent / "recorded"
"""What docs/engines.md is made of: the newest result of every engine, whoever ran it and wherever."""


class Finding(BaseModel):
    """One cell."""

    model_config = ConfigDict(frozen=True)
    result: Result
    reason: str = ""


class EngineResult(BaseModel):
    """One row. `suite` is the name of its class, `date` is ISO 8601's."""

    model_config = ConfigDict(frozen=True)
    suite: str
    title: str
    kind: str
    is_real: bool
    version: str
    date: str
    cells: dict[Column, Finding]

    @property
    def is_whole(self) -> bool:
        """Every case has a result."""
        return set(self.cells) == set(Column)


class Recorder:
    """A plugin of pytest: collects the cells of a session from the reports of its tests, wherever they ran.

    Args:
        folder: takes a file for each engine of which every case has passed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._passed: set[str] = set()
        self._rows: dict[str, EngineResult] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes the cell of a case that passed, teardown included."""
        if report.when == "call" and report.passed:
            self._passed.add(report.nodeid)
        if report.when != "teardown" or not report.passed or report.nodeid not in self._passed:
            return
        for name, value in report.user_properties:
            if name == PROPERTY:
                self._add(EngineResult.model_validate_json(str(value)))

    def pytest_sessionfinish(self) -> None:
        """Writes what is whole."""
        for row in self._rows.values():
            if row.is_whole:
                write(row, self._folder)

    def _add(self, part: EngineResult) -> None:
        """`part` has one cell."""
        known = self._rows.get(part.suite)
        cells = part.cells if known is None else {**known.cells, **part.cells}
        self._rows[part.suite] = part.model_copy(update={"cells": cells})


def write(row: EngineResult, folder: Path) -> None:
    """Writes one row, as JSON with its cells in the order of the columns."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = {column: row.cells[column] for column in Column}
    text = row.model_copy(update={"cells": ordered}).model_dump_json(indent=2)
    (folder / f"{row.suite}.json").write_text(f"{text}\n")


def read(folder: Path) -> list[EngineResult]:
    """The rows of a folder, by title."""
    rows: Iterable[EngineResult] = (
        EngineResult.model_validate_json(path.read_text()) for path in folder.glob("*.json")
    )
    return sorted(rows, key=lambda row: (row.title.lower(), not row.is_real))
