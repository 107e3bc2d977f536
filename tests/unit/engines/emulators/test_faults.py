"""Faults on the command line, and what is planned."""

import pytest

from enginehouse.contract import RequestError
from enginehouse.engines.emulators import Fault, FaultKind, parse_fault
from enginehouse.engines.emulators.core.faults import PLANNED_MAX, Faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hang", Fault(kind=FaultKind.HANG)),
        ("cut:3", Fault(kind=FaultKind.CUT, after_tokens=3)),
        ("error_frame:0:7", Fault(kind=FaultKind.ERROR_FRAME, requests=7)),
    ],
)
def test_a_fault_is_written_in_one_word(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize("text", ["", "explode", "hang:x", "hang:1:2:3", "hang:-1"])
def test_what_is_no_fault_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(RequestError, match="KIND"):
        parse_fault(text)


def test_faults_hit_in_order_and_so_often() -> None:
    faults = Faults((Fault(kind=FaultKind.HANG, requests=2), Fault(kind=FaultKind.DIE)))
    taken = [faults.take() for _ in range(4)]
    assert [fault.kind if fault else None for fault in taken] == ["hang", "hang", "die", None]


def test_no_more_than_so_many_are_planned() -> None:
    faults = Faults()
    planned = [faults.plan(Fault(kind=FaultKind.HANG)) for _ in range(PLANNED_MAX + 1)]
    assert planned == [True] * PLANNED_MAX + [False]
