"""What a job counted over its last hour, to within ten seconds: what its daemon's own alerts are judged by.

The trace (`core.trace`) cannot serve here: its stretches grow with the age of a run, and "of late" would mean minutes
after an hour and days after a month. This keeps a mark every ten seconds and forgets what is older than it needs, so a
job that was bad yesterday and is well now has no alert.
"""

from __future__ import annotations

import bisect

import msgspec

from ampd.core.ledger import Counts

STEP_SECONDS = 10.0
LONGEST_SECONDS = 3900.0
"""An hour to compare with, before the five minutes that are compared."""


class Tally(msgspec.Struct, frozen=True):
    """What became of some windows."""

    windows: int = 0
    fallbacks: int = 0
    lost: int = 0
    """Skipped or quarantined."""

    @classmethod
    def of(cls, counts: Counts) -> Tally:
        """Those of a ledger."""
        lost = sum(counts.skipped.values()) + counts.quarantined
        return cls(counts.windows, sum(counts.fp32_fallbacks.values()), lost)

    def since(self, earlier: Tally) -> Tally:
        """What came after it; nothing is negative, also where counts began anew."""
        later, before = msgspec.structs.astuple(self), msgspec.structs.astuple(earlier)
        return Tally(*(max(0, a - b) for a, b in zip(later, before, strict=True)))

    @property
    def fallback_ratio(self) -> float:
        """Fallbacks of all windows; 0 where there was none."""
        return self.fallbacks / self.windows if self.windows else 0.0

    @property
    def lost_ratio(self) -> float:
        """Lost windows of all; 0 where there was none."""
        return self.lost / self.windows if self.windows else 0.0


class Lately(msgspec.Struct):
    """Marks of the last hour, oldest first, and the moments at which something else went wrong. Unix seconds."""

    times: list[float] = []
    tallies: list[Tally] = []
    restarts: list[float] = []
    """A worker that should not have ended was started again."""
    failed_saves: list[float] = []
    """A checkpoint could not be written."""

    def add(self, now: float, counts: Counts) -> None:
        """Take in the daemon's counts at `now`; a clock that was set back begins anew."""
        if self.times and now < self.times[-1]:
            self.times.clear()
            self.tallies.clear()
        # The last mark moves along until it is a step away from the one before it.
        if len(self.times) > 1 and now - self.times[-2] <= STEP_SECONDS:
            del self.times[-1], self.tallies[-1]
        self.times.append(now)
        self.tallies.append(Tally.of(counts))
        old = bisect.bisect_left(self.times, now - LONGEST_SECONDS)
        del self.times[:old], self.tallies[:old]

    def restarted(self, now: float) -> None:
        """A worker ended that should not have, and another is started."""
        self.restarts = _with(self.restarts, now)

    def failed_to_save(self, now: float) -> None:
        """A checkpoint could not be written; the one before stands."""
        self.failed_saves = _with(self.failed_saves, now)

    def between(self, begin: float, end: float) -> Tally:
        """What was counted from `begin` to `end`; empty where that is before the first mark."""
        last = bisect.bisect_right(self.times, end) - 1
        if last < 0:
            return Tally()
        first = max(0, bisect.bisect_right(self.times, begin) - 1)
        return self.tallies[last].since(self.tallies[min(first, last)])

    def covers(self, begin: float) -> bool:
        """Whether the job was followed at that time already."""
        return bool(self.times) and self.times[0] <= begin


def _with(moments: list[float], now: float) -> list[float]:
    """The moments that may still be asked for, and this one."""
    return [at for at in moments if 0 <= now - at <= LONGEST_SECONDS] + [now]
