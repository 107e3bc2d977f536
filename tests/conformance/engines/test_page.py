"""docs/engines.md: whole, explained, and what the recorded results say."""

from importlib import import_module
from pathlib import Path

import pytest

from tests.conformance.engines.case import Result
from tests.conformance.engines.columns import GROUPS, MEANINGS, Column
from tests.conformance.engines.matrix import PAGE, rendered
from tests.conformance.engines.results import RECORDED_FOLDER, EngineResult, Finding, read
from tests.conformance.engines.suite import ConformanceSuite

ROWS = read(RECORDED_FOLDER)


def suites() -> list[type[ConformanceSuite]]:
    """The classes of the suite, in all of its files."""
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    modules = [import_module(f"tests.conformance.engines.{path.stem}") for path in files]
    found = {value for module in modules for name, value in vars(module).items() if name.startswith("Test")}
    return sorted(found, key=lambda suite: suite.__name__)


def test_every_class_of_the_suite_is_a_row_and_no_other() -> None:
    declared = {(suite.__name__, suite.title, suite.kind, suite.is_real) for suite in suites()}
    assert {(row.suite, row.title, row.kind, row.is_real) for row in ROWS} == declared
    assert len({(row.title, row.is_real) for row in ROWS}) == len(ROWS)


def test_every_row_has_every_case_a_version_and_a_date() -> None:
    for row in ROWS:
        assert row.is_whole, row.suite
        assert row.version, row.suite
        assert row.date, row.suite


def test_whatever_is_no_plain_yes_has_a_reason() -> None:
    unexplained = [
        (row.suite, column)
        for row in ROWS
        for column, finding in row.cells.items()
        if finding.result is not Result.YES and not finding.reason
    ]
    assert unexplained == []


def test_only_emulators_leave_anything_unshown() -> None:
    assert not [
        row.suite for row in ROWS if row.is_real for one in row.cells.values() if one.result is Result.NOT_SHOWN
    ]


def test_every_column_is_in_one_table_and_has_a_meaning() -> None:
    assert sorted(column for group in GROUPS.values() for column in group) == sorted(Column)
    assert set(MEANINGS) == set(Column)


def test_page_is_made_from_the_recorded_results() -> None:
    assert PAGE.read_text() == rendered(ROWS)


@pytest.mark.parametrize("result", [Result.REFUSED, Result.NOT_APPLICABLE, Result.NOT_SHOWN])
def test_equal_reasons_share_one_note(result: Result) -> None:
    cells = {column: Finding(result=result, reason="it cannot") for column in Column}
    row = EngineResult(suite="TestX", title="X", kind="x", is_real=False, version="1", date="2026-11-21", cells=cells)
    page = rendered([row])
    assert page.count("it cannot") == 1
    assert page.count(f"{result.value} (1)") == len(Column)
