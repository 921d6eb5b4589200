"""A curve as inline SVG: a polyline over time, with nothing in it that a style sheet or a reader has to guess.

The drawing is stretched to its box and strokes keep their width, so one string serves a phone and a wide screen;
the words beside it are HTML, because text inside a stretched drawing would be stretched too. A gap in the figures is
a gap in the line. What a curve says is also its label, for who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import groupby

import msgspec

WIDTH, HEIGHT = 1000.0, 100.0

Value = float | None


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """What to draw: `values` by time (several at one time make a stroke), and the times to mark at the bottom."""

    label: str
    times: Sequence[float]
    values: Sequence[Value]
    marks: Sequence[float] = ()
    is_log: bool = False
    """Equal ratios are equal heights; values that are not above 0 are gaps then."""


def draw(curve: Curve) -> str:
    """The drawing; an empty one of the same size where there is nothing to draw."""
    label = escape(curve.label, quote=True)
    head = (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" aria-label="{label}">'
    )
    return f"{head}{_line(curve)}{_marks(curve)}</svg>"


def limits(values: Iterable[Value]) -> tuple[float, float] | None:
    """The least and the greatest that is known."""
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None


def _line(curve: Curve) -> str:
    heights = [_height(value, is_log=curve.is_log) for value in curve.values]
    found = limits(heights)
    if found is None:
        return ""
    x, y = _across(curve.times), _scaled(*_widened(*found))
    strokes = []
    for is_known, group in groupby(zip(curve.times, heights, strict=True), key=lambda at: at[1] is not None):
        if is_known:
            dots = [f"{x(time):.1f} {HEIGHT - y(height):.1f}" for time, height in group if height is not None]
            strokes.append("M" + "L".join(dots if len(dots) > 1 else dots * 2))
    return f'<path class="line" d="{"".join(strokes)}"/>'


def _marks(curve: Curve) -> str:
    if not curve.marks:
        return ""
    x = _across(curve.times)
    ticks = "".join(f"M{x(time):.1f} {HEIGHT:g}V{HEIGHT - 14:g}" for time in curve.marks)
    return f'<path class="mark" d="{ticks}"/>'


def _across(times: Sequence[float]) -> Callable[[float], float]:
    begin, end = times[0], times[-1]
    return lambda time: WIDTH * (time - begin) / (end - begin) if end > begin else WIDTH


def _scaled(least: float, greatest: float) -> Callable[[float], float]:
    return lambda height: HEIGHT * (height - least) / (greatest - least)


def _widened(least: float, greatest: float) -> tuple[float, float]:
    """Room above and below, and for a flat line too, which is then in the middle."""
    margin = 0.06 * (greatest - least) or 0.5 * abs(least) or 0.5
    return least - margin, greatest + margin


def _height(value: Value, *, is_log: bool) -> Value:
    if value is None or not is_log:
        return value
    return math.log2(value) if value > 0 else None
