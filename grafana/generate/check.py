"""The lint of what is generated: dashboards as Grafana will read them, and the names in expressions.

Grafana loads a dashboard with an overlapping panel, an unknown unit or a misspelt metric without a word and
shows "No data"; so these are found here. It works on plain data and not on our structs, so that it would find
the same in a dashboard that somebody saved from the browser.

The rules of Grafana's own dashboard-linter are here (data source, job and instance as variables of the right kind that
reload; no panel without title, description, unit, query; rates over `$__rate_interval`; counters only rated; not
editable), and what it does not ask: ids, grid, thresholds, legends of several series, guarded divisions, variables that
are used and declared, marks and links. One of its rules is wider here: what is said about the whole period that is
looked at may use `$__range`.
"""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from ampd.telemetry.family import Kind
from ampd.telemetry.metrics import FAMILIES
from grafana.generate import model
from grafana.generate.pace import Pace
from grafana.generate.rules import records

_UNITS = typing.get_args(model.Unit)
_TYPES = typing.get_args(model.PanelType)
_VARIABLES = ("datasource", "job", "instance")
_TARGET_LABELS = frozenset({"job", "instance"})
_NAME = re.compile(r"\b(?:instance:)?ampd_\w+(?::\w+)?")
_SELECTOR = re.compile(r"((?:instance:)?ampd_\w+(?::\w+)?|ALERTS|up)\{([^}]*)\}")
_FIXED_RANGE = re.compile(r"\[\d+\w+[\]:]")
_USED = re.compile(r"\$\{?(\w+)")
_NOT_RATED = re.compile(r"(?<!\brate\()(?<!\bincrease\()\b(ampd_\w+)\{")
_DIVISOR = re.compile(r"/ *(?:(?:on|ignoring) \([^)]*\) *(?:group_(?:left|right) \([^)]*\) *)?)?(?=\S)")


def lint_dashboard(dashboard: dict[str, Any]) -> list[str]:
    """What is wrong with a dashboard, one line for each finding."""
    panels = dashboard["panels"]
    findings = list(_judge_whole(dashboard))
    findings += _judge_variables(dashboard)
    findings += _judge_marks(dashboard)
    findings += _judge_grid(panels)
    for panel in panels:
        if panel["type"] != "row":
            findings += [f"{panel['title'] or panel['id']}: {finding}" for finding in _judge_panel(panel)]
    return findings


def lint_expression(expr: str) -> list[str]:
    """Metrics that `expr` names and nobody exports, and labels that they do not have."""
    labels = {name: own for family in FAMILIES for name, own in family.series.items()}
    labels |= {record.name: frozenset() for record in records(Pace())}
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
    if dashboard["editable"]:
        yield "editable: a change in the browser would be lost with the next file"
    panels = dashboard["panels"]
    yield from (f"two panels have the id {value}" for value in _repeated(panel["id"] for panel in panels))
    titles = [panel["title"] for panel in panels if panel["type"] != "row"]
    yield from (f"two panels have the title {value!r}" for value in _repeated(titles))
    if not any(_leads_to_the_others(link, dashboard) for link in dashboard["links"]):
        yield "no link to the other dashboards that takes variables and time along"


def _leads_to_the_others(link: dict[str, Any], dashboard: dict[str, Any]) -> bool:
    shares_tag = bool(set(link["tags"]) & set(dashboard["tags"]))
    return bool(link["type"] == "dashboards" and shares_tag and link["includeVars"] and link["keepTime"])


def _judge_variables(dashboard: dict[str, Any]) -> Iterator[str]:
    variables = dashboard["templating"]["list"]
    names = [variable["name"] for variable in variables]
    yield from (f"no variable ${name}" for name in _VARIABLES if name not in names)
    asked = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    used = {name for expr in asked for name in _USED.findall(expr) if not name.startswith("__")}
    yield from (f"${name} is used and not declared" for name in sorted(used - set(names)))
    yield from (f"${name} is declared and not used" for name in names if name not in {*used, "datasource"})
    for variable in variables:
        yield from (f"${variable['name']}: {finding}" for finding in _judge_variable(variable))


def _judge_variable(variable: dict[str, Any]) -> Iterator[str]:
    if not variable["label"] or not variable["description"]:
        yield "no label or no description"
    if variable["name"] == "datasource":
        if variable["type"] != "datasource" or variable["query"] != "prometheus":
            yield "is not a choice of Prometheus data sources"
        return
    if variable["type"] != "query" or variable["datasource"].get("uid") != "${datasource}":
        yield "does not ask the chosen data source"
    if not (variable["multi"] and variable["includeAll"] and variable["allValue"] == ".+"):
        yield "several and all (.+) cannot be chosen"
    if variable["refresh"] != 2:
        yield "does not ask again when the time range changes"
    yield from lint_expression(variable["definition"])


def _judge_marks(dashboard: dict[str, Any]) -> Iterator[str]:
    for mark in dashboard["annotations"]["list"]:
        if mark.get("builtIn"):
            continue
        if not mark["titleFormat"]:
            yield f"{mark['name']}: a mark without a text"
        yield from (f"{mark['name']}: {finding}" for finding in _judge_query(mark))


def _judge_grid(panels: list[dict[str, Any]]) -> Iterator[str]:
    for panel in panels:
        place = panel["gridPos"]
        if place["x"] < 0 or place["w"] < 1 or place["x"] + place["w"] > model.COLUMNS:
            yield f"{panel['title']}: reaches beyond the grid's {model.COLUMNS} columns"
    for y in sorted({panel["gridPos"]["y"] for panel in panels}):
        if sum(panel["gridPos"]["w"] for panel in panels if panel["gridPos"]["y"] == y) < model.COLUMNS:
            yield f"a hole in the grid in the row at {y}"
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
    if panel["datasource"].get("uid") != "${datasource}":
        yield "its data source is not the variable"
    if not panel["targets"]:
        yield "no query"
    yield from _judge_figures(panel["fieldConfig"].get("defaults", {}))
    yield from (f"two queries are called {ref}" for ref in _repeated([t["refId"] for t in panel["targets"]]))
    for target in panel["targets"]:
        yield from (f"{target['refId'] or 'a query'}: {finding}" for finding in _judge_target(target, panel))
        yield from (
            f"does not say that it shows {name}"
            for name in names_in(target["expr"])
            if name.removesuffix("_bucket") not in panel["description"]
        )


def _judge_figures(defaults: dict[str, Any]) -> Iterator[str]:
    unit, steps = defaults.get("unit"), defaults.get("thresholds", {}).get("steps", [])
    if unit not in _UNITS:
        yield f"unit {unit!r} is not one of Grafana's that we use"
    values = [step["value"] for step in steps]
    if not values or values[0] is not None or values[1:] != sorted(set(values[1:])):
        yield "thresholds do not begin below everything and rise"


def _judge_target(target: dict[str, Any], panel: dict[str, Any]) -> Iterator[str]:
    if not target["refId"]:
        yield "no refId"
    if not target["legendFormat"] and panel["type"] != "table":
        yield "its series have no name"
    if panel["type"] == "table" and (target["format"] != "table" or not target["instant"]):
        yield "a table shows instant queries as tables"
    if panel["type"] == "heatmap" and (target["format"] != "heatmap" or "by (le)" not in target["expr"]):
        yield "heat is drawn from the buckets of one histogram, as a heat map"
    if panel["type"] == "timeseries" and "$__range]" in target["expr"]:
        yield "a curve of the whole period; use $__rate_interval"
    yield from _judge_query(target)


def _judge_query(asks: dict[str, Any]) -> Iterator[str]:
    """What holds for the queries of panels and marks alike."""
    expr = asks["expr"]
    if asks["datasource"].get("uid") != "${datasource}":
        yield "its data source is not the variable"
    if _FIXED_RANGE.search(expr):
        yield "a fixed range; use $__rate_interval"
    selectors = [selector for _name, selector in _SELECTOR.findall(expr)]
    if not selectors or any("$job" not in s or "$instance" not in s for s in selectors):
        yield "a selector without $job and $instance"
    growing = (family for family in FAMILIES if family.kind in (Kind.COUNTER, Kind.HISTOGRAM))
    counters = {name for family in growing for name in family.series}
    yield from (f"{n} only grows; rate it" for n in _NOT_RATED.findall(expr) if n in counters)
    if any(not _is_guarded(expr[found.end() :]) for found in _DIVISOR.finditer(expr)):
        yield "divides by what may be 0; compare the divisor with > 0"
    yield from lint_expression(expr)


def _is_guarded(divisor: str) -> bool:
    """Whether what follows a division sign begins with a group in brackets that ends in `> 0`."""
    depth = 0
    for place, letter in enumerate(divisor):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if not depth:
            return divisor[:place].endswith("> 0")
    return False


def _repeated(values: Iterable[Any]) -> list[Any]:
    values = list(values)
    return sorted({value for value in values if values.count(value) > 1}, key=str)
