"""Metrics in Prometheus' text format 0.0.4, with labels and histograms, under whatever names an engine has for them."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]
_NONE: Labels = {}


@dataclass(frozen=True, slots=True)
class Sample:
    """One line. `suffix` is put behind the family's name, for example "_bucket"."""

    value: float
    labels: Labels = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """The samples of one name."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help_text: str
    samples: Sequence[Sample]


class Histogram:
    """Counts of observations by upper bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self._counts)

    def observe(self, value: float) -> None:
        """Adds one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def samples(self, labels: Labels = _NONE) -> list[Sample]:
        """Its lines: a bucket for each bound, sum and count."""
        bounds = [*map(_number, self._bounds), "+Inf"]
        buckets = [
            Sample(count, {**labels, "le": bound}, "_bucket")
            for bound, count in zip(bounds, accumulate(self._counts), strict=True)
        ]
        return [*buckets, Sample(self.total, labels, "_sum"), Sample(self.count, labels, "_count")]


def gauge(name: str, help_text: str, value: float, labels: Labels = _NONE) -> Family:
    """A gauge with one sample."""
    return Family(name, "gauge", help_text, (Sample(value, labels),))


def counter(name: str, help_text: str, value: float, labels: Labels = _NONE) -> Family:
    """A counter with one sample."""
    return Family(name, "counter", help_text, (Sample(value, labels),))


def histogram(name: str, help_text: str, values: Histogram, labels: Labels = _NONE) -> Family:
    """A histogram with one set of labels."""
    return Family(name, "histogram", help_text, values.samples(labels))


def render(families: Iterable[Family]) -> bytes:
    """The page."""
    lines: list[str] = []
    for family in families:
        lines += (f"# HELP {family.name} {family.help_text}", f"# TYPE {family.name} {family.kind}")
        lines += (
            f"{family.name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}" for sample in family.samples
        )
    return ("\n".join(lines) + "\n").encode()


def _labels(labels: Labels) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return "+Inf" if math.isinf(value) else repr(float(value))
