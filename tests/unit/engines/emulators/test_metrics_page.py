"""Prometheus' text format."""

from enginehouse.engines.emulators.core.metrics import Histogram, counter, gauge, histogram, render


def test_labels_are_escaped() -> None:
    page = render([gauge("a", "A.", 1, {"model_name": 'x"y\\z'})]).decode()
    assert page == '# HELP a A.\n# TYPE a gauge\na{model_name="x\\"y\\\\z"} 1.0\n'


def test_a_histogram_has_cumulative_buckets_sum_and_count() -> None:
    values = Histogram((0.1, 1.0))
    for value in (0.1, 0.5, 5.0):
        values.observe(value)
    lines = render([histogram("h", "H.", values)]).decode().splitlines()[2:]
    assert lines == [
        'h_bucket{le="0.1"} 1.0',
        'h_bucket{le="1.0"} 2.0',
        'h_bucket{le="+Inf"} 3.0',
        "h_sum 5.6",
        "h_count 3.0",
    ]


def test_families_follow_one_another() -> None:
    page = render([counter("a_total", "A.", 2), counter("b_total", "B.", 3)]).decode()
    assert page.count("# TYPE") == 2
    assert page.endswith("b_total 3.0\n")
