"""Panels over time: curves, stacks and bars with axes, a legend, thresholds, and the marks of the dashboard."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana.preview import svg
from grafana.preview.answers import Points, Series
from grafana.preview.figures import COLORS, PALETTE, written
from grafana.preview.legend import legend
from grafana.preview.svg import Box

LEGEND = 16
_AXIS = 58


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of time in which something held, to be drawn on every panel."""

    begin: float
    end: float
    color: str


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels: `least` is at the bottom."""

    box: Box
    begin: float
    end: float
    least: float
    greatest: float
    is_log: bool = False

    def x(self, at: float) -> float:
        """The pixel of a time."""
        return self.box.x + self.box.w * (at - self.begin) / (self.end - self.begin)

    def y(self, value: float) -> float:
        """The pixel of a value; what is off the scale is at its edge."""
        low, high, here = (self._bent(each) for each in (self.least, self.greatest, value))
        share = (here - low) / (high - low) if high > low else 0.5
        return self.box.y + self.box.h * (1 - min(1.0, max(0.0, share)))

    def ticks(self) -> list[float]:
        """Three values that are easy to read: ends and middle."""
        low, high = self._bent(self.least), self._bent(self.greatest)
        values = (low, (low + high) / 2, high)
        return [2**value for value in values] if self.is_log else [*values]

    def _bent(self, value: float) -> float:
        return math.log2(max(value, 1e-12)) if self.is_log else value


def timeseries(
    panel: dict[str, Any],
    series: Sequence[Series],
    box: Box,
    span: tuple[float, float],
    marks: Sequence[Mark],
) -> str:
    """Curves, stacked or as bars where the panel says so."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    plot = box.within(_AXIS, 4, 8, 2 * LEGEND + 14)
    drawn = (
        _stacked(series) if custom["stacking"]["mode"] == "normal" else [(one.points, []) for one in series]
    )
    scale = _scale(plot, span, [points for points, _below in drawn], defaults)
    colors = [PALETTE[number % len(PALETTE)] for number in range(len(series))]
    parts = [
        _grid(scale, defaults["unit"]),
        *(shade(scale, mark) for mark in marks),
        *_thresholds(scale, defaults),
    ]
    pencil = (
        _bars
        if custom["drawStyle"] == "bars"
        else _step
        if custom.get("lineInterpolation") == "stepAfter"
        else _line
    )
    parts += [
        pencil(scale, points, below, color) for (points, below), color in zip(drawn, colors, strict=True)
    ]
    return "".join(parts) + legend(series, colors, defaults, box)


def heat(
    panel: dict[str, Any],
    series: Sequence[Series],
    box: Box,
    span: tuple[float, float],
    marks: Sequence[Mark],
) -> str:
    """A histogram over time: a column for each step, a row for each bucket, brighter for more."""
    unit = panel["options"]["yAxis"]["unit"]
    rows = sorted(series, key=lambda one: float(one.labels["le"]))
    rows = [Series(row.name, row.labels, _less(row.points, below)) for row, below in _with_below(rows)]
    rows = [row for row in rows if math.isfinite(float(row.labels["le"]))]
    used = [at for at, row in enumerate(rows) if any(value > 0 for _at, value in row.points)]
    rows = rows[max(0, used[0] - 1) : used[-1] + 2] if used else rows
    plot = box.within(_AXIS, 4, 8, 18)
    most = max((value for row in rows for _at, value in row.points), default=0) or 1
    height = plot.h / max(1, len(rows))
    scale = Scale(plot, *span, 0, 1)
    parts = [shade(scale, mark) for mark in marks]
    for number, row in enumerate(rows):
        y = plot.y + plot.h - (number + 1) * height
        parts += _cells(row.points, scale, y, height, most)
        if number % max(1, len(rows) // 6) == 0:
            parts.append(
                svg.text(
                    plot.x - 6,
                    y + 4,
                    written(float(row.labels["le"]), unit),
                    size=9,
                    fill=svg.SOFT,
                    anchor="end",
                )
            )
    return "".join(parts) + time_axis(scale)


def _with_below(rows: Sequence[Series]) -> list[tuple[Series, Points]]:
    """Each cumulative bucket with the one below it."""
    return list(zip(rows, [[], *(row.points for row in rows)], strict=False))


def _less(points: Points, below: Points) -> Points:
    under = dict(below)
    return [(at, max(0.0, value - under.get(at, 0.0))) for at, value in points]


def _cells(points: Points, scale: Scale, y: float, height: float, most: float) -> list[str]:
    step = min((b[0] - a[0] for a, b in itertools.pairwise(points)), default=1.0)
    wide = scale.box.w * step / (scale.end - scale.begin)
    return [
        svg.rect(
            Box(scale.x(at) - wide, y, wide + 0.3, height - 0.5),
            COLORS["blue"],
            opacity=round(0.15 + 0.85 * value / most, 2),
        )
        for at, value in points
        if value > 0
    ]


def _stacked(series: Sequence[Series]) -> list[tuple[Points, Points]]:
    """Each series upon the sum of those before it: its upper and its lower edge."""
    times = sorted({at for one in series for at, _value in one.points})
    below = dict.fromkeys(times, 0.0)
    edges = []
    for one in series:
        values = dict(one.points)
        above = {at: below[at] + values.get(at, 0.0) for at in times}
        edges.append(([*above.items()], [*below.items()]))
        below = above
    return edges


def _scale(plot: Box, span: tuple[float, float], curves: Sequence[Points], defaults: dict[str, Any]) -> Scale:
    is_log = defaults["custom"]["scaleDistribution"]["type"] == "log"
    values = [value for points in curves for _at, value in points if value > 0 or not is_log] or [0.0, 1.0]
    least, greatest = min(values), max(values)
    if is_log:
        return Scale(
            plot,
            *span,
            2 ** math.floor(math.log2(least)),
            2 ** math.ceil(math.log2(greatest) + 0.01),
            is_log=True,
        )
    least = defaults.get("min", min(0.0, least) if least < 0.5 * greatest else least)
    greatest = max(defaults.get("max", greatest), least)
    return (
        Scale(plot, *span, least, greatest)
        if greatest > least
        else Scale(plot, *span, min(0.0, least), least * 1.25 or 1)
    )


def _grid(scale: Scale, unit: str) -> str:
    parts = []
    for value in scale.ticks():
        y = scale.y(value)
        parts.append(svg.line((scale.box.x, y), (scale.box.x + scale.box.w, y), svg.GRID))
        parts.append(
            svg.text(
                scale.box.x - 6,
                y + 3,
                written(value, unit).removesuffix(" ops/s"),
                size=9,
                fill=svg.SOFT,
                anchor="end",
            )
        )
    return "".join(parts) + time_axis(scale)


def time_axis(scale: Scale) -> str:
    """Three times below a plot: begin, middle and end."""
    parts = []
    anchors: tuple[tuple[float, svg.Anchor], ...] = ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    for share, anchor in anchors:
        at = scale.begin + share * (scale.end - scale.begin)
        words = time.strftime("%H:%M:%S", time.gmtime(at))
        parts.append(
            svg.text(scale.x(at), scale.box.y + scale.box.h + 13, words, size=9, fill=svg.SOFT, anchor=anchor)
        )
    return "".join(parts)


def shade(scale: Scale, mark: Mark) -> str:
    """A stretch of time behind a plot; one that is too short to be seen is its edge."""
    begin, end = scale.x(mark.begin), scale.x(mark.end)
    top, bottom = scale.box.y, scale.box.y + scale.box.h
    edge = svg.line((begin, top), (begin, bottom), mark.color, dash="3 3")
    return edge + (
        svg.rect(Box(begin, top, end - begin, scale.box.h), mark.color, opacity=0.08)
        if end - begin > 2
        else ""
    )


def _thresholds(scale: Scale, defaults: dict[str, Any]) -> list[str]:
    if "thresholdsStyle" not in defaults["custom"]:
        return []
    steps = [
        step
        for step in defaults["thresholds"]["steps"]
        if step["value"] is not None and step["value"] <= scale.greatest
    ]
    right = scale.box.x + scale.box.w
    return [
        svg.line(
            (scale.box.x, scale.y(s["value"])), (right, scale.y(s["value"])), COLORS[s["color"]], dash="6 4"
        )
        for s in steps
    ]


def _line(scale: Scale, points: Points, below: Points, color: str) -> str:
    upper = [(scale.x(at), scale.y(value)) for at, value in points]
    filled = svg.area(upper, [(scale.x(at), scale.y(value)) for at, value in below], color) if below else ""
    return filled + "".join(svg.path([upper[at] for at in run], color) for run in _runs(points))


def _runs(points: Points) -> list[list[int]]:
    """Places of points without a gap between them: what is not known is not drawn."""
    gap = 1.5 * min((b[0] - a[0] for a, b in itertools.pairwise(points)), default=0.0)
    runs: list[list[int]] = [[0]] if points else []
    for at in range(1, len(points)):
        if gap and points[at][0] - points[at - 1][0] > gap:
            runs.append([])
        runs[-1].append(at)
    return runs


def _step(scale: Scale, points: Points, below: Points, color: str) -> str:
    parts = []
    for run in _runs(points):
        held = [points[at] for at in run]
        stairs = [(b[0], a[1]) for a, b in itertools.pairwise(held)]
        corners = [
            point for pair in itertools.zip_longest(held, stairs) for point in pair if point is not None
        ]
        parts.append(svg.path([(scale.x(at), scale.y(value)) for at, value in corners], color))
    return "".join(parts)


def _bars(scale: Scale, points: Points, below: Points, color: str) -> str:
    floor = scale.y(0)
    return "".join(
        svg.rect(Box(scale.x(at) - 1.5, scale.y(value), 3, floor - scale.y(value)), color, opacity=0.8)
        for at, value in points
        if value > 0
    )
