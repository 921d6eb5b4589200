"""What a metric family is: its type, its labels and how many series it may have; the table of them is `metrics`."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.StrEnum):
    """The Prometheus type of a family; `INFO` is a gauge at 1 whose labels are the facts."""

    COUNTER = "counter"
    GAUGE = "gauge"
    INFO = "info"
    HISTOGRAM = "histogram"


class Label(msgspec.Struct, frozen=True):
    """A label: the values that are always there, and how many may be there in all (0: no others)."""

    name: str
    values: tuple[str, ...] = ()
    at_most: int = 0

    @property
    def bound(self) -> int:
        """The greatest number of values that this label ever takes."""
        return max(len(self.values), self.at_most)

    @property
    def is_fact(self) -> bool:
        """It takes any one value, which is told and not counted by."""
        return not self.values and self.at_most == 1


class Family(msgspec.Struct, frozen=True):
    """One metric: `name` is the name of its series on the page, before the endings that a histogram has."""

    name: str
    kind: Kind
    doc: str
    labels: tuple[Label, ...] = ()
    unit: str = ""
    from_start: bool = True
    bounds: tuple[float, ...] = ()

    @property
    def bound(self) -> int:
        """The greatest number of series that this family ever has."""
        bound = len(self.bounds) + 3 if self.kind is Kind.HISTOGRAM else 1  # +Inf, sum and count
        for label in self.labels:
            bound *= label.bound
        return bound

    @property
    def series(self) -> dict[str, frozenset[str]]:
        """The names that its series have on the page, each with its labels."""
        labels = frozenset(label.name for label in self.labels)
        if self.kind is not Kind.HISTOGRAM:
            return {self.name: labels}
        return {
            f"{self.name}_bucket": labels | {"le"},
            f"{self.name}_sum": labels,
            f"{self.name}_count": labels,
        }


def counter(name: str, doc: str, *labels: Label, unit: str = "") -> Family:
    """What only grows; there from the start."""
    return Family(name, Kind.COUNTER, doc, labels, unit)


def gauge(name: str, doc: str, *labels: Label, unit: str = "") -> Family:
    """What goes up and down; there from the start."""
    return Family(name, Kind.GAUGE, doc, labels, unit)


def measured(name: str, doc: str, *labels: Label, unit: str = "") -> Family:
    """A gauge without a series until somebody has measured it."""
    return Family(name, Kind.GAUGE, f"{doc} Absent until measured.", labels, unit, from_start=False)


def histogram(name: str, doc: str, bounds: tuple[float, ...], unit: str = "") -> Family:
    """How values are spread over `bounds`."""
    return Family(name, Kind.HISTOGRAM, doc, unit=unit, bounds=bounds)


def readable(name: str, doc: str, *labels: Label, unit: str = "") -> Family:
    """A counter that not every machine lets one read: without a series where it does not."""
    return Family(name, Kind.COUNTER, doc, labels, unit, from_start=False)


def info(name: str, doc: str, *labels: str, of: tuple[Label, ...] = ()) -> Family:
    """Facts, each a label; one set of them for each value of the labels `of`."""
    facts = (Label(label, at_most=1) for label in labels)
    return Family(name, Kind.INFO, doc, (*of, *facts), from_start=not of)
