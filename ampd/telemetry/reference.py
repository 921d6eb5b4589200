"""What a metric means, in words, from the same table that the page is built from."""

from __future__ import annotations

from collections.abc import Iterable

from ampd.telemetry.family import Family, Kind, Label
from ampd.telemetry.metrics import FAMILIES, family


def explain(name: str) -> str:
    """What the metric `name` is, for a person; raises KeyError with the nearest name where there is none."""
    found = family(name)
    lines = [f"{found.name} ({_kind(found)})", f"  {found.doc}"]
    lines += [f"  label {label.name}: {_values(label)}" for label in found.labels]
    lines.append(f"  try: {_query(found)}")
    return "\n".join(lines)


def reference(families: Iterable[Family] = FAMILIES) -> str:
    """The families as a Markdown table."""
    rows = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for each in families:
        labels = "; ".join(f"`{label.name}`: {_values(label)}" for label in each.labels)
        rows.append(f"| `{each.name}` | {_kind(each)} | {labels} | {each.doc} |")
    return "\n".join(rows) + "\n"


def _kind(each: Family) -> str:
    return f"{each.kind}, in {each.unit}" if each.unit else str(each.kind)


def _values(label: Label) -> str:
    if label.at_most:
        return f"up to {label.at_most} values" if label.at_most > 1 else "one value at a time"
    return ", ".join(label.values)


def _query(each: Family) -> str:
    match each.kind:
        case Kind.COUNTER:
            return f"rate({each.name}[5m])"
        case Kind.HISTOGRAM:
            return f"histogram_quantile(0.95, rate({each.name}_bucket[5m]))"
        case Kind.GAUGE | Kind.INFO:
            return each.name
