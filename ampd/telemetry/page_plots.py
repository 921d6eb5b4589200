"""The three curves of the status page, with the words around them: loss, gradient norm, loss scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

import msgspec

from ampd.core.shown import in_time
from ampd.core.trace import Point
from ampd.core.view import JobView
from ampd.telemetry.curve import Curve, Value, draw, limits
from ampd.telemetry.page_parts import clock

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """A curve with its title, what it says now, and a note; `show` writes a value of its axis."""

    title: str
    figure: str
    note: str
    times: Sequence[float]
    values: Sequence[Value]
    show: Callable[[float], str]
    marks: Sequence[float] = ()
    is_log: bool = False


def loss(view: JobView) -> str:
    """The training loss, and the last figures on held-out data."""
    snapshot, evaluated, points = view.snapshot, view.last_evaluated, view.trace.points
    figures = evaluated.figures.items() if evaluated is not None else ()
    held_out = ", ".join(f"{escape(name)} {value:.4f}" for name, value in figures)
    return _plotted(
        Plot(
            title="Loss",
            figure=_now(snapshot.loss if snapshot is not None else None, ".4f"),
            note=f"held-out {held_out}" if held_out else "not evaluated on held-out data",
            times=_times(points),
            values=[point.loss for point in points],
            show=lambda value: f"{value:.3g}",
        )
    )


def norm(view: JobView) -> str:
    """The norm of all gradients, on a log scale: it spikes before a run goes wrong."""
    snapshot, points = view.snapshot, view.trace.points
    clipped = (snapshot.job if snapshot is not None else view.counts).clipped
    return _plotted(
        Plot(
            title="Gradient norm",
            figure=_now(snapshot.grad_norm if snapshot is not None else None, ".4g"),
            note=f"before clipping, log scale; {clipped} clipped",
            times=_times(points),
            values=[point.grad_norm for point in points],
            show=lambda value: f"{value:.3g}",
            is_log=True,
        )
    )


def scale(view: JobView) -> str:
    """The loss scale in powers of two; each point is drawn from its least to its last, so that no dip is lost."""
    snapshot, points, amp = view.snapshot, view.trace.points, view.config.amp
    now = snapshot.scale if snapshot is not None else None
    counts = snapshot.job if snapshot is not None else view.counts
    return _plotted(
        Plot(
            title="Loss scale",
            figure="off" if now is None else f"{now:g} = {power(now)}" if power(now) else f"{now:g}",
            note=f"{counts.scale_backoffs} back-offs (marked), {counts.scale_growths} growths; "
            f"floor {_scale(amp.min_scale)}, ceiling {_scale(amp.max_scale)}",
            times=[time for time in _times(points) for _ in range(2)],
            values=[value for point in points for value in (point.least_scale, point.scale)],
            show=_scale,
            marks=[point.end for point in points if point.happened.backoffs],
            is_log=True,
        )
    )


def power(scale: float) -> str:
    """A scale as a power of two; "" where it is none."""
    exponent = math.log2(scale)
    return f"2{str(int(exponent)).translate(_RAISED)}" if exponent.is_integer() else ""


def _scale(scale: float) -> str:
    return power(scale) or f"{scale:g}"


def _times(points: Sequence[Point]) -> list[float]:
    return [point.end for point in points]


def _now(value: Value, spec: str) -> str:
    return "none yet" if value is None else format(value, spec)


def _plotted(plot: Plot) -> str:
    found = limits(plot.values)
    least, greatest = (plot.show(found[0]), plot.show(found[1])) if found else ("-", "-")
    label = f"{plot.title}: now {plot.figure}, least {least}, greatest {greatest}"
    curve = Curve(label=label, times=plot.times, values=plot.values, marks=plot.marks, is_log=plot.is_log)
    return (
        f'<h2>{plot.title}</h2><p class="figure">{plot.figure}</p><p class="soft">{plot.note}</p>'
        f'<div class="plot"><div class="axis"><span>{greatest}</span><span>{least}</span></div>{draw(curve)}'
        f'<div class="times">{_below(plot.times)}</div></div>'
    )


def _below(times: Sequence[float]) -> str:
    if not times:
        return "<span>no window yet</span>"
    begin, end = times[0], times[-1]
    return f"<span>{clock(begin)}</span><span>{in_time(end - begin)}</span><span>{clock(end)} UTC</span>"
