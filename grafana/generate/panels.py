"""Panels with our defaults, and their layout: sections of panels that fill rows of the grid from the left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana.generate.model import COLUMNS, GridPos, Panel, PanelType, Target, Unit

JOB = 'job=~"$job", instance=~"$instance"'
"""The selector that every query carries."""

Query = tuple[str, str]
"""PromQL, and the legend of its series."""

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
    """Which of a closed set of values held when: a bar for each, drawn where it is 1."""
    options = {"mergeValues": True, "rowHeight": 0.9, "showValue": "never", "legend": {"showLegend": False}}
    steps: Sequence[tuple[float | None, str]] = ((None, "transparent"), (1, CALM))
    custom = {"fillOpacity": 70, "lineWidth": 0}
    more = {"options": options, "steps": steps, "custom": custom} | more
    return Draft(
        **more, type="state-timeline", title=title, description=description, queries=[query], unit="none"
    )


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
    targets = [
        Target(ref_id=chr(ord("A") + index), expr=expr, legend_format=legend)
        for index, (expr, legend) in enumerate(draft.queries)
    ]
    return Panel(
        id=number,
        type=draft.type,
        title=draft.title,
        description=draft.description,
        grid_pos=GridPos(h=draft.height, w=draft.width, x=x, y=y),
        targets=targets,
        field_config={"defaults": _defaults(draft), "overrides": []},
        options=draft.options,
    )


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
