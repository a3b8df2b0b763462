"""Counters, gauges and histograms in Prometheus' text format, version 0.0.4 (prometheus.io: Exposition formats).

Own writer: prometheus_client takes 10 MiB of resident memory, this takes a dictionary.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: upper bounds in seconds: a keyword on a Pi 5 to a VGG on a Pi Zero
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Labels = tuple[str, ...]


class Metric:
    """One family: values by label values. ``read`` makes it a gauge or counter that is read when it is written."""

    kind = "counter"

    def __init__(
        self, name: str, about: str, labels: Sequence[str] = (), read: Callable[[], Iterable[tuple[Labels, float]]] | None = None
    ) -> None:
        self.name, self.about, self.labels = name, about, tuple(labels)
        self._values: dict[Labels, float] = {}
        self._read = read
        self._lock = threading.Lock()

    def add(self, amount: float, *labels: str) -> None:
        with self._lock:
            self._values[labels] = self._values.get(labels, 0.0) + amount

    def value(self, *labels: str) -> float:
        return self._values.get(labels, 0.0)

    def lines(self) -> Iterable[str]:
        if self._read is not None:
            values = dict(self._read())
        else:
            with self._lock:
                values = dict(self._values)
            if not self.labels:
                values.setdefault((), 0.0)
        for labels, value in values.items():
            yield f"{self.name}{_labels(dict(zip(self.labels, labels, strict=True)))} {_number(value)}"


class Gauge(Metric):
    """A value that goes up and down."""

    kind = "gauge"


class Histogram(Metric):
    """How often values fell below each bound."""

    kind = "histogram"

    def __init__(self, name: str, about: str, labels: Sequence[str], bounds: Sequence[float] = LATENCY_BUCKETS) -> None:
        super().__init__(name, about, labels)
        self.bounds = tuple(bounds)
        self._counts: dict[Labels, list[float]] = {}

    def observe(self, value: float, *labels: str) -> None:
        with self._lock:
            counts = self._counts.setdefault(labels, [0.0] * (len(self.bounds) + 2))  # buckets, all, sum
            for index, bound in enumerate(self.bounds):
                if value <= bound:
                    counts[index] += 1
                    break
            counts[-2] += 1
            counts[-1] += value

    def lines(self) -> Iterable[str]:
        with self._lock:
            held = {labels: list(counts) for labels, counts in self._counts.items()}
        for labels, counts in held.items():
            named = dict(zip(self.labels, labels, strict=True))
            total = 0.0
            for bound, count in zip(self.bounds, counts, strict=False):
                total += count
                yield f"{self.name}_bucket{_labels({**named, 'le': _number(bound)})} {_number(total)}"
            yield f"{self.name}_bucket{_labels({**named, 'le': '+Inf'})} {_number(counts[-2])}"
            yield f"{self.name}_sum{_labels(named)} {_number(counts[-1])}"
            yield f"{self.name}_count{_labels(named)} {_number(counts[-2])}"


class Metrics:
    """All families of the service, in the order in which they were made."""

    def __init__(self) -> None:
        self.families: list[Metric] = []

    def counter(self, name: str, about: str, labels: Sequence[str] = (), read: Any = None) -> Metric:
        return self._keep(Metric(name, about, labels, read))

    def gauge(self, name: str, about: str, labels: Sequence[str] = (), read: Any = None) -> Metric:
        return self._keep(Gauge(name, about, labels, read))

    def histogram(self, name: str, about: str, labels: Sequence[str] = ()) -> Histogram:
        made = Histogram(name, about, labels)
        self.families.append(made)
        return made

    def _keep(self, metric: Metric) -> Metric:
        self.families.append(metric)
        return metric

    def text(self) -> str:
        """The page that Prometheus scrapes."""
        lines: list[str] = []
        for family in self.families:
            values = list(family.lines())
            if values:
                lines += [f"# HELP {family.name} {family.about}", f"# TYPE {family.name} {family.kind}", *values]
        return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1 << 53 else repr(float(value))
