"""Durations of rules at a time scale.

At scale 60 a rule that looks back five minutes looks back five seconds, so the very rules that ship can be
seen to fire and resolve against real servers in a test. Counts and ratios do not change with the scale; times
do.
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


@dataclass(frozen=True, slots=True)
class Pace:
    """How many times faster than in production time is taken to run."""

    scale: float = 1.0

    def duration(self, seconds: float) -> str:
        """A Prometheus duration, never shorter than a millisecond: "1h30m"."""
        rest = max(1, round(seconds * 1000 / self.scale))
        parts = []
        for unit, size in _UNITS:
            count, rest = divmod(rest, size)
            parts += [f"{count}{unit}"] if count else []
        return "".join(parts)

    def seconds(self, seconds: float) -> str:
        """Seconds as a number to compare with."""
        return f"{seconds / self.scale:.15g}"
