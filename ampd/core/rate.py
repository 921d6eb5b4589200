"""How fast a job runs now: windows and samples per second over its last snapshots.

A mean over a short span, not since the start: an operator who has just changed the precision wants to see what it
did. The span is bounded in time and in length, and a clock that is set back empties it.
"""

from __future__ import annotations

from collections import deque

from ampd.core.messages import Snapshot

SPAN_SECONDS = 10.0
"""Long enough to smooth an evaluation's pause, short enough to show a change within one canonical line."""
_MOST = 256


class Rate:
    """Windows and samples per second over the last SPAN_SECONDS of one worker."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int, int]] = deque(maxlen=_MOST)

    def add(self, now: float, snapshot: Snapshot) -> None:
        """Take in what a worker reported at `now` (Unix seconds)."""
        if self._points and now < self._points[-1][0]:
            self.clear()
        self._points.append((now, snapshot.counts.windows, snapshot.counts.samples))
        while len(self._points) > 2 and now - self._points[0][0] > SPAN_SECONDS:
            self._points.popleft()

    def clear(self) -> None:
        """Begin anew, for another worker."""
        self._points.clear()

    @property
    def windows_per_second(self) -> float | None:
        """None where two snapshots at different times are not there yet."""
        return self._slope(1)

    @property
    def samples_per_second(self) -> float | None:
        """None where two snapshots at different times are not there yet."""
        return self._slope(2)

    def _slope(self, column: int) -> float | None:
        if len(self._points) < 2 or self._points[-1][0] <= self._points[0][0]:
            return None
        first, last = self._points[0], self._points[-1]
        return (last[column] - first[column]) / (last[0] - first[0])
