"""Panels with our defaults, and their layout: sections of panels that fill rows of the grid from the left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana.generate.model import COLUMNS, Format, GridPos, Panel, PanelType, Target, Unit

JOB = 'job=~"$job", instance=~"$instance"'
"""The selector that every query carries."""

Query = tuple[str, str]
"""PromQL, and the legend of its series."""

_FORMATS: Mapping[PanelType, Format] = {"table": "table", "heatmap": "heatmap"}

OK, WARN, BAD, CALM = "green", "orange", "red", "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A panel before it has a place. `steps` are thresholds: (from this value on, colour)."""

    type: PanelType
    title: str
    description: str
    queries: Sequence[Query]
    unit: Unit = "short"
    width: int = 8
    height: int = 8
    steps: Sequence[tuple[float | None, str]] = ((None, CALM),)
    custom: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    overrides: Sequence[dict[str, Any]] = ()
    transformations: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the panels under it."""

    title: str
    drafts: Sequence[Draft]


def stat(title: str, description: str, query: Query, unit: Unit = "short", **more: Any) -> Draft:
    """One number, or a word where its options say so."""
    options = {
        "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }  # fmt: skip
    more["options"] = options | more.get("options", {})
    return Draft(
        **({"width": 3, "height": 4} | more),
        type="stat",
        title=title,
        description=description,
        queries=[query],
        unit=unit,
    )


def word(title: str, description: str, query: Query, **more: Any) -> Draft:
    """A stat that shows the name of its series, for gauges with one series for each closed value."""
    return stat(title, description, query, "none", options={"textMode": "name"}, **more)


def series(
    title: str, description: str, queries: Sequence[Query], unit: Unit = "short", **more: Any
) -> Draft:
    """Lines over time."""
    custom = {
        "drawStyle": "line", "fillOpacity": 8, "lineWidth": 1, "showPoints": "never", "spanNulls": False,
        "scaleDistribution": {"type": "linear"}, "stacking": {"group": "A", "mode": "none"},
    }  # fmt: skip
    more["custom"] = custom | more.get("custom", {})
    options = {
        "legend": {
            "calcs": ["lastNotNull"],
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Draft(
        **more,
        type="timeseries",
        title=title,
        description=description,
        queries=queries,
        unit=unit,
        options=options,
    )


def stacked(
    title: str, description: str, queries: Sequence[Query], unit: Unit = "short", **more: Any
) -> Draft:
    """Lines over time whose sum matters."""
    return series(
        title,
        description,
        queries,
        unit,
        custom={"stacking": {"group": "A", "mode": "normal"}, "fillOpacity": 40},
        **more,
    )


def timeline(title: str, description: str, query: Query, **more: Any) -> Draft:
    """When something held: a bar for each series, drawn where it is 1."""
    steps: Sequence[tuple[float | None, str]] = ((None, "transparent"), (1, CALM))
    return _timeline(title, description, query, **({"steps": steps} | more))


def phases(
    title: str, description: str, query: Query, words: Sequence[tuple[str, str]], **more: Any
) -> Draft:
    """Which word of a closed set held when, one bar for each job: value 1 is the first of (word, colour)."""
    options = {str(place): {"text": word, "color": color} for place, (word, color) in enumerate(words, 1)}
    mappings = [{"type": "value", "options": options | {"0": {"text": "not known", "color": "transparent"}}}]
    return _timeline(title, description, query, defaults={"mappings": mappings}, **more)


def _timeline(title: str, description: str, query: Query, **more: Any) -> Draft:
    shows_words = "defaults" in more
    options = {
        "mergeValues": True, "rowHeight": 0.9, "showValue": "auto" if shows_words else "never",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": shows_words},
    }  # fmt: skip
    return Draft(
        **more,
        type="state-timeline",
        title=title,
        description=description,
        queries=[query],
        unit="none",
        options=options,
        custom={"fillOpacity": 70, "lineWidth": 0},
    )


def heat(title: str, description: str, expr: str, unit: Unit, **more: Any) -> Draft:
    """A histogram over time: `expr` gives its cumulative buckets, one series for each `le`."""
    options = {
        "calculate": False, "cellGap": 1, "yAxis": {"unit": unit, "axisPlacement": "left"},
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "exponent": 0.5, "reverse": False},
        "tooltip": {"mode": "single", "yHistogram": True}, "legend": {"show": False}, "rowsFrame": {"layout": "auto"},
    }  # fmt: skip
    return Draft(
        **more,
        type="heatmap",
        title=title,
        description=description,
        queries=[(expr, "{{le}}")],
        unit=unit,
        options=options,
    )


def bars(title: str, description: str, queries: Sequence[Query], unit: Unit = "short", **more: Any) -> Draft:
    """A bar for each series, as long as its value now: for parts of a whole and for a few ranks."""
    options = {
        "displayMode": "gradient", "orientation": "horizontal", "showUnfilled": True, "valueMode": "color",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }  # fmt: skip
    return Draft(
        type="bargauge",
        title=title,
        description=description,
        queries=queries,
        unit=unit,
        options=options,
        defaults={"min": 0} | more.pop("defaults", {}),
        **more,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: a query whose value it shows or, without one, a label that the queries carry.

    A query without a name is not shown: it only brings labels into the row.
    """

    name: str = ""
    expr: str = ""
    label: str = ""
    unit: Unit = "none"
    steps: Sequence[tuple[float | None, str]] = ()
    link: str = ""


def table(title: str, description: str, columns: Sequence[Column], **more: Any) -> Draft:
    """One row for each set of labels: instant queries, merged; `columns` in the order in which they stand."""
    asked = [column for column in columns if column.expr]
    names = {
        column: f"Value #{_ref(asked.index(column))}" if column.expr else column.label for column in columns
    }
    hidden = {"Time": True} | {names[column]: True for column in columns if not column.name}
    order = {names[column]: place for place, column in enumerate(columns)}
    arranged = {"excludeByName": hidden, "indexByName": order, "renameByName": {}}
    return Draft(
        **more,
        type="table",
        title=title,
        description=description,
        queries=[(column.expr, "") for column in asked],
        unit="none",
        options={"cellHeight": "sm", "showHeader": True, "footer": {"show": False}},
        overrides=[_override(names[column], column) for column in columns if column.name],
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": arranged}],
    )


def _override(field_name: str, column: Column) -> dict[str, Any]:
    properties: list[dict[str, Any]] = [{"id": "displayName", "value": column.name}]
    if column.expr:
        properties.append({"id": "unit", "value": column.unit})
    if column.steps:
        steps = [{"value": value, "color": color} for value, color in column.steps]
        properties.append({"id": "thresholds", "value": {"mode": "absolute", "steps": steps}})
        properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
    if column.link:
        properties.append({"id": "links", "value": [{"title": "Look at this job", "url": column.link}]})
    return {"matcher": {"id": "byName", "options": field_name}, "properties": properties}


def lay_out(sections: Iterable[Section]) -> list[Panel]:
    """Panels with ids and places: each section under its heading, rows filled from the left."""
    panels: list[Panel] = []
    y = 0
    for section in sections:
        panels.append(_heading(len(panels) + 1, section.title, y))
        x, y, tallest = 0, y + 1, 0
        for draft in section.drafts:
            if x + draft.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            panels.append(_placed(draft, len(panels) + 1, x, y))
            x, tallest = x + draft.width, max(tallest, draft.height)
        y += tallest
    return panels


def _heading(number: int, title: str, y: int) -> Panel:
    return Panel(id=number, type="row", title=title, grid_pos=GridPos(h=1, w=COLUMNS, x=0, y=y))


def _placed(draft: Draft, number: int, x: int, y: int) -> Panel:
    targets = [_target(draft, index) for index in range(len(draft.queries))]
    return Panel(
        id=number,
        type=draft.type,
        title=draft.title,
        description=draft.description,
        grid_pos=GridPos(h=draft.height, w=draft.width, x=x, y=y),
        targets=targets,
        field_config={"defaults": _defaults(draft), "overrides": [*draft.overrides]},
        options=draft.options,
        transformations=[*draft.transformations],
    )


def _target(draft: Draft, index: int) -> Target:
    expr, legend = draft.queries[index]
    # A word or a figure of now must not be followed by every one that held in the period.
    shows_now = draft.type == "stat" and draft.options["graphMode"] == "none"
    is_instant = shows_now or draft.type in ("table", "bargauge")
    return Target(
        ref_id=_ref(index),
        expr=expr,
        legend_format=legend,
        format=_FORMATS.get(draft.type, "time_series"),
        instant=is_instant,
        range=not is_instant,
    )


def _ref(index: int) -> str:
    return chr(ord("A") + index)


def _defaults(draft: Draft) -> dict[str, Any]:
    steps = [{"value": value, "color": color} for value, color in draft.steps]
    is_plain = len(steps) == 1 and draft.type == "timeseries"
    return {
        "unit": draft.unit,
        "color": {"mode": "palette-classic" if is_plain else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": draft.custom,
        **draft.defaults,
    }
