"""Deciding does no more work for each replica in a large fleet than in a small one."""

from tests.bench.bench_decide import lines_run


def test_a_decision_grows_no_faster_than_the_fleet() -> None:
    assert lines_run(2000) <= 10 * lines_run(200)
