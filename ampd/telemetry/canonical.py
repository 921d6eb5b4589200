"""The canonical line: one log line per interval that says how the whole job is doing.

Steps are not logged one by one: at 50 windows a second that is noise nobody reads. A line is a pure function of the view
and of the throughput since the line before, which is the difference of two marks.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ampd.core.view import JobView
from ampd.telemetry.readings import precision_of, saved_window


class Mark(msgspec.Struct, frozen=True):
    """How far a job was at a time, in seconds of any clock that does not step; two of them give a rate."""

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


def canonical(view: JobView, windows_per_second: float) -> dict[str, Any]:
    """The fields of the line. Fallbacks and skips are of the whole job; a figure that nobody has measured yet is None."""
    return {
        "state": view.state.value,
        "revision": view.revision,
        **_progress(view),
        "windows_per_second": round(windows_per_second, 3),
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
