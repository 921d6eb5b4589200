"""The lint of what is generated: dashboards as Grafana will read them, and the names in expressions.

Grafana loads a dashboard with an overlapping panel, an unknown unit or a misspelt metric without a word and
shows "No data"; so these are found here. It works on plain data and not on our structs, so that it would find
the same in a dashboard that somebody saved from the browser.
"""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from ampd.telemetry.metrics import FAMILIES
from grafana.generate import model
from grafana.generate.pace import Pace
from grafana.generate.rules import records

_UNITS = typing.get_args(model.Unit)
_TYPES = typing.get_args(model.PanelType)
_VARIABLES = ("datasource", "job", "instance")
_TARGET_LABELS = frozenset({"job", "instance"})
_NAME = re.compile(r"\b(?:instance:)?ampd_\w+(?::\w+)?")
_SELECTOR = re.compile(r"((?:instance:)?ampd_\w+(?::\w+)?|ALERTS)\{([^}]*)\}")
_FIXED_RANGE = re.compile(r"\[\d+\w+[\]:]")


def lint_dashboard(dashboard: dict[str, Any]) -> list[str]:
    """What is wrong with a dashboard, one line for each finding."""
    panels = dashboard["panels"]
    findings = list(_judge_whole(dashboard))
    findings += _judge_grid(panels)
    for panel in panels:
        if panel["type"] != "row":
            findings += [f"{panel['title'] or panel['id']}: {finding}" for finding in _judge_panel(panel)]
    return findings


def lint_expression(expr: str) -> list[str]:
    """Metrics that `expr` names and nobody exports, and labels that they do not have."""
    labels = {family.name: {label.name for label in family.labels} for family in FAMILIES}
    labels |= {record.name: set() for record in records(Pace())}
    findings = [f"no metric {name}" for name in names_in(expr) if name not in labels]
    for name, selector in _SELECTOR.findall(expr):
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        unknown = used - labels.get(name, used) - _TARGET_LABELS
        findings += [f"{name} has no label {label}" for label in sorted(unknown)]
    return findings


def names_in(expr: str) -> set[str]:
    """The metrics of ours, recorded ones included, that an expression names."""
    return set(_NAME.findall(re.sub(r'"[^"]*"', '""', expr)))


def _judge_whole(dashboard: dict[str, Any]) -> Iterator[str]:
    if dashboard["schemaVersion"] != model.SCHEMA_VERSION:
        yield f"schemaVersion is not {model.SCHEMA_VERSION}"
    if not dashboard["uid"] or not dashboard["title"] or not dashboard["description"]:
        yield "a dashboard needs a uid, a title and a description"
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    yield from (f"no variable ${name}" for name in _VARIABLES if name not in variables)
    panels = dashboard["panels"]
    yield from (f"two panels have the id {value}" for value in _repeated(panel["id"] for panel in panels))
    titles = [panel["title"] for panel in panels if panel["type"] != "row"]
    yield from (f"two panels have the title {value!r}" for value in _repeated(titles))


def _judge_grid(panels: list[dict[str, Any]]) -> Iterator[str]:
    for panel in panels:
        place = panel["gridPos"]
        if place["x"] < 0 or place["w"] < 1 or place["x"] + place["w"] > model.COLUMNS:
            yield f"{panel['title']}: reaches beyond the grid's {model.COLUMNS} columns"
    for a, b in itertools.combinations(panels, 2):
        if _overlap(a["gridPos"], b["gridPos"]):
            yield f"{a['title']} overlaps {b['title']}"


def _overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    return not beside and not above


def _judge_panel(panel: dict[str, Any]) -> Iterator[str]:
    if panel["type"] not in _TYPES:
        yield f"type {panel['type']!r} is not one that we use (graph and singlestat are gone from Grafana)"
    if not panel["title"]:
        yield "no title"
    if not panel["description"]:
        yield "no description"
    unit = panel["fieldConfig"].get("defaults", {}).get("unit")
    if unit not in _UNITS:
        yield f"unit {unit!r} is not one of Grafana's that we use"
    if panel["datasource"].get("uid") != "${datasource}":
        yield "its data source is not the variable"
    if not panel["targets"]:
        yield "no query"
    yield from (f"two queries are called {ref}" for ref in _repeated([t["refId"] for t in panel["targets"]]))
    for target in panel["targets"]:
        yield from (f"{target['refId'] or 'a query'}: {finding}" for finding in _judge_target(target))
        yield from (
            f"does not say that it shows {name}"
            for name in names_in(target["expr"])
            if name not in panel["description"]
        )


def _judge_target(target: dict[str, Any]) -> Iterator[str]:
    expr = target["expr"]
    if not target["refId"]:
        yield "no refId"
    if target["datasource"].get("uid") != "${datasource}":
        yield "its data source is not the variable"
    if _FIXED_RANGE.search(expr):
        yield "a fixed range; use $__rate_interval"
    if (
        any("$job" not in s or "$instance" not in s for _name, s in _SELECTOR.findall(expr))
        or "{" not in expr
    ):
        yield "a selector without $job and $instance"
    yield from lint_expression(expr)


def _repeated(values: Iterable[Any]) -> list[Any]:
    values = list(values)
    return sorted({value for value in values if values.count(value) > 1}, key=str)
