"""The canonical line: one log line per interval that says how the whole job is doing.

Steps are not logged one by one: at 50 windows a second that is noise nobody reads. A line is a pure function
of the view, the time and the `Mark` of the line before, from which it takes the throughput since then.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ampd.core.view import JobView
from ampd.telemetry.readings import precision_of, saved_window


class Mark(msgspec.Struct, frozen=True):
    """How far a job was at a time, in Unix seconds; two of them give a rate."""

    time: float
    windows: int

    @classmethod
    def of(cls, view: JobView, now: float) -> Mark:
        """Where the job is now. Windows count over all workers of this daemon, so that they never run back."""
        return cls(now, view.counts.windows)

    def rate_since(self, earlier: Mark) -> float:
        """Windows per second between two marks; 0 where no time has passed."""
        elapsed = self.time - earlier.time
        return (self.windows - earlier.windows) / elapsed if elapsed > 0 else 0.0


def canonical(view: JobView, now: float, last: Mark | None = None) -> dict[str, Any]:
    """The fields of the line at `now`; throughput is since `last`, or since the daemon started without one.

    Fallbacks and skips are of the whole job. A figure that nobody has measured yet is None.
    """
    rate = Mark.of(view, now).rate_since(last or Mark(view.started, 0))
    return {
        "state": view.state.value,
        "revision": view.revision,
        **_progress(view),
        "windows_per_second": round(rate, 3),
        **_trouble(view),
        "checkpoint_window": saved_window(view),
    }


def _progress(view: JobView) -> dict[str, Any]:
    snapshot = view.snapshot
    precision = precision_of(view)
    return {
        "window": snapshot.window if snapshot else view.ready.window if view.ready else 0,
        "total_windows": snapshot.total_windows
        if snapshot
        else view.ready.total_windows
        if view.ready
        else 0,
        "epoch": snapshot.epoch if snapshot else 0,
        "loss": snapshot.loss if snapshot else None,
        "grad_norm": snapshot.grad_norm if snapshot else None,
        "lr": snapshot.lr if snapshot else None,
        "precision": precision.value if precision else None,
        "scale": snapshot.scale if snapshot else None,
    }


def _trouble(view: JobView) -> dict[str, Any]:
    counts = view.snapshot.job if view.snapshot else view.counts
    return {
        "fallbacks": sum(counts.fp32_fallbacks.values()),
        "skips": sum(counts.skipped.values()),
        "quarantined": counts.quarantined,
        "restarts": sum(view.restarts.values()),
    }
