"""The lint of the metric table: the naming rules that `promtool check metrics` does not know.

promtool lets `_percent`, `_gib` and a label named `job` pass. These rules are those of Prometheus's own
naming guide: base units (seconds, bytes, ratios from 0 to 1), `_total` on counters only, points in time and
never ages, labels that no scraper or rule will overwrite, and few series.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ampd.telemetry.family import Family, Kind

MOST_SERIES = 100
"""More series than this in one family need another design."""

_NAME = re.compile(r"ampd(_[a-z0-9]+)+")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = frozenset(
    {"job", "instance", "type", "stage", "env", "service", "le", "quantile", "severity", "alertname"}
)
_BASE_UNITS = ("seconds", "bytes", "ratio", "joules")
_REFUSED = frozenset(
    {
        *("percent", "percentage", "perc", "pct", "permille"),
        *("bits", "kb", "mb", "gb", "tb", "kib", "mib", "gib", "tib", "kilobytes", "megabytes", "gigabytes"),
        *("ms", "us", "ns", "milliseconds", "microseconds", "nanoseconds", "millis"),
        *("min", "minutes", "hours", "days", "watts", "age", "ago", "elapsed"),
    }
)


def lint(families: Iterable[Family]) -> list[str]:
    """What is wrong with these families, one line for each finding; empty where nothing is."""
    families = list(families)
    names = [f.name for f in families]
    findings = [f"{name}: is in the table twice" for name in sorted({n for n in names if names.count(n) > 1})]
    for family in families:
        findings += [f"{family.name}: {finding}" for finding in _judge(family)]
    return findings


def _judge(family: Family) -> Iterator[str]:
    yield from _judge_name(family)
    yield from _judge_unit(family)
    yield from _judge_labels(family)
    if not re.fullmatch(r"\S.*\.", family.doc) or "\n" in family.doc:
        yield "its doc must be sentences on one line that end in a full stop"


def _judge_name(family: Family) -> Iterator[str]:
    if not _NAME.fullmatch(family.name):
        yield "a name is ampd_ and lower-case words joined by single underscores (colons are for recording rules)"
    if family.name.endswith("_total") != (family.kind is Kind.COUNTER):
        yield "a counter ends in _total, and nothing else does"
    if family.name.endswith("_info") != (family.kind is Kind.INFO):
        yield "an info metric ends in _info, and nothing else does"
    if family.name.endswith(("_count", "_sum", "_bucket", "_created")):
        yield "this ending belongs to histograms and summaries"


def _judge_unit(family: Family) -> Iterator[str]:
    words = family.name.split("_")
    for word in sorted(_REFUSED.intersection(words)):
        yield f"{word!r} is not a base unit or is an age; use seconds, bytes, a ratio from 0 to 1, or a timestamp"
    stem = family.name.removesuffix("_total")
    ending = next((unit for unit in _BASE_UNITS if stem.endswith(f"_{unit}")), "")
    if ending != family.unit:
        yield f"its unit is {family.unit or 'none'}, but its name says {ending or 'none'}"


def _judge_labels(family: Family) -> Iterator[str]:
    for label in family.labels:
        if not _LABEL.fullmatch(label.name) or label.name in _RESERVED:
            yield f"label {label.name!r} is reserved or not lower case"
        if label.bound == 0:
            yield f"label {label.name!r} has neither values nor a bound"
    if family.bound > MOST_SERIES:
        yield f"{family.bound} series are more than {MOST_SERIES}; labels need fewer values"
