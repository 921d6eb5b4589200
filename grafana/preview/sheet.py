"""A whole dashboard on one sheet, and what it was found to show."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

from grafana.preview import cells, plots, svg
from grafana.preview.answers import Points, Series, Server
from grafana.preview.figures import COLORS
from grafana.preview.plots import Mark
from grafana.preview.svg import Box

WIDTH = 1200
COLUMN, ROW = WIDTH / 24, 30
HEAD = 96
_LABEL = "PREVIEW, not Grafana: drawn by `python -m grafana.preview` from the answers of a real Prometheus"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture, and the titles of the panels that had nothing to show."""

    svg: str
    empty: list[str]


def draw(dashboard: dict[str, Any], server: Server) -> Sheet:
    """Ask every query of a dashboard and draw the answers."""
    marks = {
        mark["name"]: _marks(mark, server)
        for mark in dashboard["annotations"]["list"]
        if mark["enable"] and "expr" in mark
    }
    drawn = [mark for found in marks.values() for mark in found]
    parts, empty = [], []
    for panel in dashboard["panels"]:
        answers = {t["refId"]: _answer(t, server) for t in panel["targets"]}
        if panel["type"] != "row" and not any(answers.values()):
            empty.append(panel["title"])
        parts.append(_panel(panel, answers, server, drawn))
    height = HEAD + ROW * max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in dashboard["panels"]) + 8
    ground = svg.rect(Box(0, 0, WIDTH, height), svg.BACK)
    head = _head(dashboard, server, {name: found for name, found in marks.items() if found})
    style = 'font-family="Inter, system-ui, Liberation Sans, DejaVu Sans, sans-serif" fill="none"'
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" {style}>'
    return Sheet(
        f"{frame}<title>{dashboard['title']}, preview</title>{ground}{head}{''.join(parts)}</svg>\n", empty
    )


def _answer(target: dict[str, Any], server: Server) -> list[Series]:
    ask = server.at_end if target["instant"] else server.over_time
    return ask(target["expr"], target["legendFormat"])


def _marks(mark: dict[str, Any], server: Server) -> list[Mark]:
    """Neighbouring samples are one mark, as Grafana has it."""
    color = COLORS[mark["iconColor"]]
    return [
        Mark(begin, end, color)
        for one in server.over_time(mark["expr"], mark["titleFormat"])
        for begin, end in _spans(one.points, 1.5 * server.step)
    ]


def _spans(points: Points, gap: float) -> list[tuple[float, float]]:
    spans = [(points[0][0], points[0][0])]
    for a, b in itertools.pairwise(at for at, _value in points):
        spans[-1:] = [(spans[-1][0], b)] if b - a <= gap else [spans[-1], (b, b)]
    return spans


def _head(dashboard: dict[str, Any], server: Server, marks: dict[str, list[Mark]]) -> str:
    begin, end = (time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) for at in (server.begin, server.end))
    parts = [
        svg.rect(Box(0, 0, WIDTH, 22), "#3d2c00"),
        svg.text(12, 15, _LABEL, size=11, fill="#ffd27a", bold=True),
        svg.text(12, 48, dashboard["title"], size=19, bold=True),
        svg.text(WIDTH - 12, 48, f"{begin} to {end} UTC", size=11, fill=svg.SOFT, anchor="end"),
        svg.text(12, 67, svg.cut(dashboard["description"], 11, WIDTH - 24), size=11, fill=svg.SOFT),
    ]
    x = 12.0
    for name, found in marks.items():
        parts += [
            svg.rect(Box(x, 78, 3, 11), found[0].color),
            svg.text(x + 8, 87, name, size=10, fill=svg.SOFT),
        ]
        x += svg.width(name, 10) + 30
    return "".join(parts)


def _panel(panel: dict[str, Any], answers: dict[str, list[Series]], server: Server, marks: list[Mark]) -> str:
    place = panel["gridPos"]
    box = Box(place["x"] * COLUMN, HEAD + place["y"] * ROW, place["w"] * COLUMN, place["h"] * ROW)
    if panel["type"] == "row":
        return svg.text(box.x + 12, box.y + 21, panel["title"], size=13, bold=True)
    card = svg.rect(box.within(3, 3, 3, 3), svg.CARD, stroke=svg.EDGE, radius=3)
    title = svg.text(box.x + 12, box.y + 20, svg.cut(panel["title"], 11.5, box.w - 20), size=11.5, bold=True)
    inner = box.within(10, 28, 10, 8)
    series = [one for found in answers.values() for one in found]
    if not series:
        nothing = svg.text(
            box.x + box.w / 2, box.y + box.h / 2 + 8, "No data", size=12, fill=svg.SOFT, anchor="middle"
        )
        return card + title + nothing
    return card + title + _inside(panel, answers, series, inner, server, marks)


def _inside(
    panel: dict[str, Any], answers: dict[str, list[Series]], series: list[Series], box: Box, server: Server, marks: list[Mark]
) -> str:  # fmt: skip
    span = (server.begin, server.end)
    match panel["type"]:
        case "stat":
            return cells.stat(panel, series, box)
        case "bargauge":
            return cells.gauges(panel, series, box)
        case "table":
            return cells.table(panel, answers, box)
        case "state-timeline":
            return cells.timeline(panel, series, box, span, marks)
        case "heatmap":
            return plots.heat(panel, series, box, span, marks)
        case _:
            return plots.timeseries(panel, series, box, span, marks)
