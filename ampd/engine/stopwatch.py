"""Where the time of the loop goes: seconds by activity, cumulative."""

from __future__ import annotations

import time


class Stopwatch:
    """Adds up laps; each moment belongs to exactly one activity."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("train", "data", "evaluate", "checkpoint", "paused", "telemetry"), 0.0)
        self.last = time.perf_counter()

    def lap(self, activity: str) -> float:
        """Give the time since the last lap to `activity`; returns it in seconds."""
        now = time.perf_counter()
        elapsed = now - self.last
        self.seconds[activity] += elapsed
        self.last = now
        return elapsed
