"""The part of Grafana's classic dashboard schema (version 41, Grafana 11) that we use, as structs.

The classic schema and not the newer v2: provisioning from files takes it in every Grafana from 10 on. Names
are Grafana's, in snake case; `msgspec` writes them in camel case. Closed sets are Literals, so that a unit or
a panel type that Grafana does not know is an error of the type checker.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SCHEMA_VERSION = 41
COLUMNS = 24

PanelType = Literal["stat", "timeseries", "state-timeline", "bargauge", "table", "heatmap"]
Unit = Literal[
    "none",
    "short",
    "s",
    "bytes",
    "percentunit",
    "ops",
    "dateTimeFromNow",
    "sci",
    "flops",
    "watt",
    "bool_yes_no",
    "locale",
]
Format = Literal["time_series", "table", "heatmap"]


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A piece of a dashboard's JSON."""


class Source(Part, frozen=True, kw_only=True):
    """A reference to a data source; the one that the reader chose at the top of the dashboard, by default."""

    type: str = "prometheus"
    uid: str = "${datasource}"


class Target(Part, frozen=True, kw_only=True):
    """A query of a panel; `legend_format` names its series."""

    ref_id: str
    expr: str
    legend_format: str = "__auto"
    datasource: Source = Source()
    editor_mode: Literal["code"] = "code"
    format: Format = "time_series"
    instant: bool = False
    range: bool = True


class GridPos(Part, frozen=True, kw_only=True):
    """Where a panel is, on a grid of 24 columns."""

    h: int
    w: int
    x: int
    y: int


class Panel(Part, frozen=True, kw_only=True):
    """A panel or, with type "row", the heading of a section."""

    id: int
    type: str
    title: str
    grid_pos: GridPos
    description: str = ""
    datasource: Source = Source()
    targets: list[Target] = []
    field_config: dict[str, Any] = {}
    options: dict[str, Any] = {}
    transformations: list[Any] = []
    collapsed: bool = False
    panels: list[Any] = []


class Variable(Part, frozen=True, kw_only=True):
    """A choice at the top of the dashboard."""

    name: str
    type: Literal["datasource", "query"]
    label: str
    query: str | dict[str, str]
    description: str
    definition: str = ""
    datasource: Source | None = None
    current: dict[str, Any] = {}
    include_all: bool = False
    all_value: str | None = None
    multi: bool = False
    refresh: int = 2  # when the time range changes, so that a job that starts later shows up
    sort: int = 1
    hide: int = 0
    options: list[Any] = []
    regex: str = ""


class Link(Part, frozen=True, kw_only=True):
    """The other dashboards with the same tag, at the top; what was chosen and the time range go along."""

    title: str
    tags: list[str]
    type: Literal["dashboards"] = "dashboards"
    as_dropdown: bool = False
    include_vars: bool = True
    keep_time: bool = True
    target_blank: bool = False
    icon: str = "external link"
    tooltip: str = ""
    url: str = ""


class Annotation(Part, frozen=True, kw_only=True):
    """Marks on every panel's time axis, at the times where `expr` has a value above 0."""

    name: str
    expr: str
    icon_color: str
    title_format: str
    datasource: Source = Source()
    enable: bool = True
    step: str = "15s"
    use_value_for_time: bool = False


class Dashboard(Part, frozen=True, kw_only=True):
    """A whole dashboard file."""

    uid: str
    title: str
    description: str
    tags: list[str]
    panels: list[Panel]
    templating: dict[str, list[Variable]]
    annotations: dict[str, list[Any]]
    links: list[Link]
    schema_version: int = SCHEMA_VERSION
    version: int = 1
    editable: bool = False  # a change in the browser would be lost with the next file
    graph_tooltip: int = 1  # one crosshair over all panels
    refresh: str = "10s"
    time: dict[str, str]
    timezone: str = "browser"
    id: None = None


def to_json(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as plain data, as Grafana reads it."""
    plain: dict[str, Any] = msgspec.to_builtins(dashboard)
    return plain
