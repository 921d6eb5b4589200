"""The names below a plot, each with the value that a reader would look for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana.preview import svg
from grafana.preview.answers import Series
from grafana.preview.figures import written
from grafana.preview.svg import Box


def legend(series: Sequence[Series], colors: Sequence[str], defaults: dict[str, Any], box: Box) -> str:
    """Names with a value, in two rows, as many as fit; those that ever moved come first."""
    rises = defaults["custom"]["drawStyle"] == "bars"
    order = sorted(range(len(series)), key=lambda at: not any(value for _time, value in series[at].points))
    shown = [(number, _named(series[number], defaults["unit"], rises=rises)) for number in order]
    parts, place = [], 0
    for row in range(2):
        x, y, right = box.x + 4, box.y + box.h - 18 + row * 15, box.x + box.w
        while place < len(shown):
            number, words = shown[place]
            rest = f"and {len(shown) - place} more"
            reserved = svg.width(rest, 9.5) + 14 if row and place < len(shown) - 1 else 0
            if x + 14 + svg.width(words, 9.5) > right - reserved and x > box.x + 4:
                parts += [svg.text(x, y, rest, size=9.5, fill=svg.SOFT)] if row else []
                break
            words = svg.cut(words, 9.5, right - x - 14)
            parts += [svg.rect(Box(x, y - 4, 10, 2), colors[number]), svg.text(x + 14, y, words, size=9.5)]
            x += svg.width(words, 9.5) + 26
            place += 1
    return "".join(parts)


def _named(one: Series, unit: str, *, rises: bool) -> str:
    """A series with its last value, or its greatest where it is of single happenings."""
    value = max(value for _at, value in one.points) if rises else one.last
    return f"{one.name}: {'at most ' if rises else ''}{written(value, unit)}"
