"""From a `JobView` to metric families: closes label sets, folds what is unknown, refuses NaN.

A custom collector over plain data, and not gauges and counters that code elsewhere must remember to set: the
view is the only state, so a page can never disagree with `ampctl status`. Labels with an open set keep the
first values they saw for the life of the daemon; series that came and went would be unbounded in the server's
memory although no page was long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ampd.core.histogram import Histogram
from ampd.core.view import JobView
from ampd.telemetry.cost import Cost
from ampd.telemetry.family import Family, Kind, Label
from ampd.telemetry.metrics import FAMILIES, OTHER
from ampd.telemetry.readings import Reading, Readings, read

Series = dict[tuple[str, ...], float]


_LONGEST_FACT = 128
_FIGURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@-]{0,63}")


class JobCollector(Collector):
    """Collects every family of the table from the view, on the thread of whoever renders the registry.

    `cost` gives what the daemon itself has cost so far, and `machine` what is read off the machine; those are metrics too.
    """

    def __init__(
        self,
        view: Callable[[], JobView],
        *,
        cost: Callable[[], Cost] = Cost,
        machine: Callable[[], Readings] = dict,
    ) -> None:
        self._view = view
        self._cost, self._machine = cost, machine
        self._seen: dict[str, set[str]] = {}

    def describe(self) -> list[Metric]:
        """The families without a sample, so that registering does not read the view."""
        return [_metric(family) for family in FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """The families with the samples of this moment."""
        left_out = {"nonfinite": 0.0, "bound": 0.0}
        readings = read(self._view()) | self._cost().readings() | self._machine()
        readings["ampd_telemetry_readings_left_out"] = left_out
        # The left-out tally is last in the table, so that it has counted all the others when it is read.
        shown = [family for family in FAMILIES if family.name in readings]
        return iter([self._metric(family, readings[family.name], left_out) for family in shown])

    def _metric(self, family: Family, reading: Reading, left_out: dict[str, float]) -> Metric:
        if isinstance(reading, Histogram):
            return _binned(family, reading)
        return _filled(family, self._series(family, reading, left_out))

    def _series(self, family: Family, reading: Reading, left_out: dict[str, float]) -> Series:
        series = dict.fromkeys(_known(family.labels), 0.0) if family.from_start else {}
        for raw, value in _flatten(reading, len(family.labels)):
            labels = self._admit(family, raw)
            if labels is None:
                left_out["bound"] += 1
            elif not math.isfinite(value):
                left_out["nonfinite"] += 1
            else:
                series[labels] = series.get(labels, 0.0) + value
        return series

    def _admit(self, family: Family, raw: tuple[str, ...]) -> tuple[str, ...] | None:
        """The label values that a reading is shown under; None where a bound keeps it out."""
        values = [self._value(family.name, *pair) for pair in zip(family.labels, raw, strict=True)]
        admitted = tuple(value for value in values if value is not None)
        return admitted if len(admitted) == len(raw) else None

    def _value(self, name: str, label: Label, value: str) -> str | None:
        if label.is_fact:
            return _fact(value)
        if value in label.values:
            return value
        if not label.at_most:
            return OTHER if OTHER in label.values else None
        seen = self._seen.setdefault(f"{name}.{label.name}", set(label.values))
        if value not in seen and (len(seen) == label.at_most or not _FIGURE.fullmatch(value)):
            return None
        seen.add(value)
        return value


def _flatten(reading: Reading, depth: int) -> Iterator[tuple[tuple[str, ...], float]]:
    assert not isinstance(reading, Histogram), "no family has histograms by label"
    if isinstance(reading, Mapping):
        for key, inner in reading.items():
            yield from (((str(key), *rest), value) for rest, value in _flatten(inner, depth - 1))
    elif reading is not None:
        assert depth == 0, "a reading has as many levels as its family has labels"
        yield (), float(reading)


def _known(labels: tuple[Label, ...]) -> list[tuple[str, ...]]:
    """Every combination of the values that are always there."""
    combinations: list[tuple[str, ...]] = [()]
    for label in labels:
        combinations = [(*known, value) for known in combinations for value in label.values]
    return combinations


def _fact(value: str) -> str:
    return value.encode(errors="replace").decode()[:_LONGEST_FACT]


def _metric(family: Family) -> Metric:
    names = [label.name for label in family.labels]
    match family.kind:
        case Kind.COUNTER:
            return CounterMetricFamily(family.name, family.doc, labels=names, unit=family.unit)
        case Kind.INFO:
            return InfoMetricFamily(family.name.removesuffix("_info"), family.doc, labels=names)
        case Kind.GAUGE:
            return GaugeMetricFamily(family.name, family.doc, labels=names, unit=family.unit)
        case Kind.HISTOGRAM:
            return HistogramMetricFamily(family.name, family.doc, labels=names, unit=family.unit)


def _binned(family: Family, histogram: Histogram) -> Metric:
    metric = HistogramMetricFamily(family.name, family.doc, unit=family.unit)
    names = [*map(str, family.bounds), "+Inf"]
    metric.add_metric([], list(zip(names, map(float, histogram.cumulative), strict=True)), histogram.total)
    return metric


def _filled(family: Family, series: Series) -> Metric:
    metric = _metric(family)
    names = [label.name for label in family.labels]
    for labels, value in series.items():
        metric.add_sample(family.name, dict(zip(names, labels, strict=True)), value)
    return metric
