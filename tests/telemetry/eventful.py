"""A job with a story, for looking at: ten minutes in float16, a storm of overflows in the sixth, and what became of it.

Made of snapshots and events as a worker sends them, entered through the functions that the supervisor uses, so that
the page is looked at with curves and events that can really come about.
"""

from __future__ import annotations

import math

from ampd.core import messages as m
from ampd.core.bulletin import Bulletin
from ampd.core.kept import MemorySaved
from ampd.core.ledger import Cause, Counts
from ampd.core.lifecycle import JobState
from ampd.core.observed import observe
from ampd.core.precision import Precision
from ampd.core.view import JobView
from tests.telemetry import views

PACE = 4
"""Snapshots a second, and windows too."""
LENGTH_SECONDS = 600
STORM = range(330 * PACE, 345 * PACE)
NOW = views.STARTED + LENGTH_SECONDS

_BESIDES: dict[int, tuple[m.Report, ...]] = {
    1379: (m.LimitReached(window=1379, epoch=1, fallbacks=11, action="warn"),),
    1600: (views.saved(window=1600, path="runs/bytes/checkpoints/1600"),),
    2200: (m.Evaluated(window=2200, figures={"loss": 1.3127, "accuracy": 0.6214}, seconds=1.25),),
    2350: (views.saved(window=2350, path="runs/bytes/checkpoints/2350"),),
}
"""What happens besides windows."""


def eventful() -> JobView:
    """The job after ten minutes."""
    view = views.starting()
    told = Bulletin(view)
    told.tell("daemon.started", views.STARTED, pid=view.pid, endpoint=view.endpoint, http=view.http)
    told.announce(views.ready(), views.STARTED + 3)
    observe(view, 0, views.ready(total_windows=4000), views.STARTED + 3)
    told.move(JobState.RUNNING, "", views.STARTED + 3)
    counts = Counts(skipped={"data": 2, "model": 1}, quarantined=1, applied=-4)
    scale = 65536.0
    for step in range(1, LENGTH_SECONDS * PACE):
        now = views.STARTED + 3 + step / PACE
        scale = _window(step, scale, counts, told, now)
        observe(view, 0, _snapshot(step, scale, counts), now)
        for report in _BESIDES.get(step, ()):
            told.announce(report, now)
            observe(view, 0, report, now)
    return view


def _window(step: int, scale: float, counts: Counts, told: Bulletin, now: float) -> float:
    """Count one window; the scale after it."""
    counts.windows = counts.low_precision = step
    counts.applied += 1
    counts.samples, counts.tokens = 32 * step, 4096 * step
    counts.clipped = step // 9
    if step not in STORM and step not in (400, 407, 1900):
        if step % 200 or scale >= 65536.0:
            return scale
        counts.scale_growths += 1
        told.announce(m.ScaleMoved(window=step, old=scale, new=2 * scale), now)
        return 2 * scale
    cause = Cause.SCALE if step % 3 else Cause.FORWARD
    counts.fp32_fallbacks[cause] = counts.fp32_fallbacks.get(cause, 0) + 1
    told.announce(
        m.FellBack(window=step, cause=cause, tried=Precision.FLOAT16, applied_at=Precision.FLOAT32), now
    )
    if scale <= 64.0:
        return scale
    counts.scale_backoffs += 1
    told.announce(m.ScaleMoved(window=step, old=scale, new=scale / 2), now)
    return scale / 2


def _snapshot(step: int, scale: float, counts: Counts) -> m.Snapshot:
    noise = 0.05 * math.sin(step * 12.9898) + 0.04 * math.sin(step * 78.233)
    loss = 1.2 + 3.2 * math.exp(-step / 700) + noise + (0.6 if step in STORM else 0.0)
    norm = (0.6 + math.exp(-step / 500)) * math.exp(2 * noise) * (12 if step in STORM else 1)
    return views.snapshot(
        window=step,
        total_windows=4000,
        epoch=step // 800,
        counts=counts.copy(),
        job=counts.copy(),
        loss=loss,
        grad_norm=norm,
        scale=scale,
        seconds={"train": 0.2 * step, "data": 0.03 * step, "checkpoint": 4.2, "evaluate": 9.0},
        memory={"peak": 512 * 2.0**20, "allocated": 402 * 2.0**20},
        saved=MemorySaved(bytes=2_000_000, basis="float32 window"),
    )
