"""Panels without a value axis: single figures, timelines of words, bar gauges, tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from grafana.preview import svg
from grafana.preview.answers import Series
from grafana.preview.figures import COLORS, mapped, threshold_color, written
from grafana.preview.plots import Mark, Scale, shade, time_axis
from grafana.preview.svg import Box


def stat(panel: dict[str, Any], series: Sequence[Series], box: Box) -> str:
    """One figure for each series, the same height each; a word where it is mapped or names its series."""
    defaults = panel["fieldConfig"]["defaults"]
    shows_name = panel["options"]["textMode"] == "name"
    parts, height = [], box.h / max(1, len(series))
    for number, one in enumerate(series):
        word = (one.name, "") if shows_name else mapped(one.last, defaults)
        words = word[0] if word else _rounded(one.last, defaults)
        several = len(series) > 1 and not shows_name
        size = min(26.0, height * 0.5, box.w / max(4, len(words)) / 0.56 * 0.9)
        middle = box.y + height * (number + 0.5) + size * 0.36 - (6 if several else 0)
        parts.append(
            svg.text(
                box.x + box.w / 2,
                middle,
                words,
                size=size,
                fill=threshold_color(one.last, defaults),
                anchor="middle",
                bold=True,
            )
        )
        if several:
            parts.append(
                svg.text(
                    box.x + box.w / 2,
                    middle + 13,
                    svg.cut(one.name, 9, box.w),
                    size=9,
                    fill=svg.SOFT,
                    anchor="middle",
                )
            )
    return "".join(parts)


def _rounded(value: float, defaults: dict[str, Any]) -> str:
    decimals = defaults.get("decimals")
    return written(value if decimals is None else round(value, decimals), defaults["unit"])


def timeline(
    panel: dict[str, Any],
    series: Sequence[Series],
    box: Box,
    span: tuple[float, float],
    marks: Sequence[Mark],
) -> str:
    """A bar for each series, in the colour of its value; words are written where they fit."""
    defaults = panel["fieldConfig"]["defaults"]
    plot = box.within(min(150.0, 12 + max((svg.width(one.name, 9.5) for one in series), default=0)), 2, 8, 18)
    scale = Scale(plot, *span, 0, 1)
    height = plot.h / max(1, len(series))
    parts = [time_axis(scale)]
    for number, one in enumerate(series):
        row = Box(plot.x, plot.y + number * height + 2, plot.w, min(height - 4, 34))
        parts.append(
            svg.text(plot.x - 6, row.y + row.h / 2 + 3, svg.cut(one.name, 9.5, 138), size=9.5, anchor="end")
        )
        parts += [_stretch(scale, row, begin, end, value, defaults) for begin, end, value in _stretches(one)]
    return "".join(parts) + "".join(shade(scale, mark) for mark in marks)


def _stretches(one: Series) -> list[tuple[float, float, float]]:
    """(begin, end, value) of each stretch in which the value was the same; a gap ends one."""
    points = one.points
    step = min((b[0] - a[0] for a, b in itertools.pairwise(points)), default=1.0)
    found: list[tuple[float, float, float]] = []
    for at, value in points:
        if found and found[-1][2] == value and at - found[-1][1] <= 1.5 * step:
            found[-1] = (found[-1][0], at + step, value)
        else:
            found.append((at, at + step, value))
    return found


def _stretch(scale: Scale, row: Box, begin: float, end: float, value: float, defaults: dict[str, Any]) -> str:
    word = mapped(value, defaults)
    color = word[1] if word else threshold_color(value, defaults)
    if color == "none" or not color:
        return ""
    box = Box(scale.x(begin), row.y, scale.x(min(end, scale.end)) - scale.x(begin), row.h)
    fits = word is not None and svg.width(word[0], 9.5) + 8 < box.w
    words = (
        svg.text(box.x + 5, box.y + box.h / 2 + 3.5, word[0], size=9.5, fill="#111217", bold=True)
        if fits and word
        else ""
    )
    return svg.rect(box, color, opacity=0.8) + words


def gauges(panel: dict[str, Any], series: Sequence[Series], box: Box) -> str:
    """A horizontal bar for each series, the longest first."""
    defaults = panel["fieldConfig"]["defaults"]
    ranked = sorted(series, key=lambda one: -one.last)
    height = min(30.0, box.h / max(1, len(ranked)))
    most = max((one.last for one in ranked), default=0) or 1
    room = min(box.w * 0.45, 12 + max((svg.width(one.name, 10) for one in ranked), default=0))
    parts = []
    for number, one in enumerate(ranked):
        y = box.y + number * height
        bar = Box(box.x + room + 8, y + 4, (box.w - room - 84) * one.last / most, height - 8)
        parts.append(
            svg.text(box.x + room, y + height / 2 + 4, svg.cut(one.name, 10, room), size=10, anchor="end")
        )
        parts.append(svg.rect(bar, COLORS["blue"], radius=2))
        parts.append(
            svg.text(bar.x + bar.w + 6, y + height / 2 + 4, _rounded(one.last, defaults), size=10, bold=True)
        )
    return "".join(parts)


def table(panel: dict[str, Any], answers: dict[str, list[Series]], box: Box) -> str:
    """Instant queries merged by their labels, columns in order; what is hidden is left out."""
    (_merge, organize) = panel["transformations"]
    order = organize["options"]["indexByName"]
    hidden = {name for name, is_hidden in organize["options"]["excludeByName"].items() if is_hidden}
    columns = [name for name in sorted(order, key=order.__getitem__) if name not in hidden]
    told = {
        o["matcher"]["options"]: {p["id"]: p["value"] for p in o["properties"]}
        for o in panel["fieldConfig"]["overrides"]
    }
    wide = box.w / max(1, len(columns))
    parts = []
    for place, name in enumerate(columns):
        x = box.x + place * wide
        parts.append(
            svg.text(
                x,
                box.y + 12,
                svg.cut(told[name]["displayName"], 10, wide - 6),
                size=10,
                fill=COLORS["light-blue"],
                bold=True,
            )
        )
        for number, row in enumerate(_rows(answers)):
            y = box.y + 12 + 20 * (number + 1)
            words, color = _cell(row.get(name), told[name])
            parts.append(svg.text(x, y, svg.cut(words, 10.5, wide - 6), size=10.5, fill=color))
    return "".join(parts) + svg.line((box.x, box.y + 18), (box.x + box.w, box.y + 18), svg.GRID)


def _rows(answers: dict[str, list[Series]]) -> list[dict[str, str | float]]:
    """One row for each set of labels that do not contradict each other."""
    rows: list[dict[str, str | float]] = []
    for ref, series in answers.items():
        for one in series:
            fitting = [
                row
                for row in rows
                if all(row.get(name, value) == value for name, value in one.labels.items())
            ]
            if not fitting:
                fitting = [{}]
                rows += fitting
            for row in fitting:
                row.update(one.labels)
                row[f"Value #{ref}"] = one.last
    return rows


def _cell(value: str | float | None, told: dict[str, Any]) -> tuple[str, str]:
    if value is None:
        return "-", svg.SOFT
    if isinstance(value, str):
        return value, COLORS["light-blue"] if "links" in told else svg.TEXT
    color = threshold_color(value, told) if "thresholds" in told else svg.TEXT
    return written(value, told.get("unit", "none")), color
