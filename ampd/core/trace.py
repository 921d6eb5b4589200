"""How the figures of a run moved, in bounded memory: what the curves of the status page are drawn from.

A trace is a list of points, each a stretch of time. When it is full, neighbours are merged in pairs and the stretches
are twice as long from then on, so that a minute and a month both fit in a few hundred points. Merging and not
dropping, because what a person looks for is short: a loss scale that backed off for a second, a spike of the norm.
A point therefore keeps the least scale and the greatest norm that it saw, and counts are summed, never sampled.

A server with a time series database does this better. This is for who has none.
"""

from __future__ import annotations

import math

import msgspec

from ampd.core.ledger import Counts
from ampd.core.messages import Snapshot

MOST = 360
"""Points that a trace holds at most; about one for each pixel column or two of a curve."""
FINEST_SECONDS = 0.5
"""The length of a point until the trace is first full (three minutes)."""
RATE_SECONDS = 10.0
"""Rates are over the last points that cover this much time: calm, and soon right after a change."""


class Totals(msgspec.Struct, frozen=True):
    """The counts that a trace follows; two of them give what happened in between."""

    windows: int = 0
    backoffs: int = 0
    fallbacks: int = 0
    skips: int = 0
    samples: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, counts: Counts) -> Totals:
        """Those of a ledger."""
        fallbacks, skips = sum(counts.fp32_fallbacks.values()), sum(counts.skipped.values())
        return cls(counts.windows, counts.scale_backoffs, fallbacks, skips, counts.samples, counts.tokens)

    def minus(self, earlier: Totals) -> Totals:
        """What came since; nothing is negative, also where counts began anew."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(earlier), strict=True)
        return Totals(*(max(0, later - before) for later, before in pairs))

    def plus(self, other: Totals) -> Totals:
        """Both."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Totals(*(a + b for a, b in pairs))


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time, in Unix seconds; a figure is None where no finite one was seen in it."""

    begin: float
    end: float
    window: int
    happened: Totals = Totals()
    loss: float | None = None
    """The mean of the snapshots' losses."""
    losses: int = 0
    """How many that mean is of."""
    grad_norm: float | None = None
    """The greatest."""
    scale: float | None = None
    """The last."""
    least_scale: float | None = None

    def plus(self, later: Point) -> Point:
        """This stretch and the one after it, as one."""
        losses = self.losses + later.losses
        total = (self.loss or 0.0) * self.losses + (later.loss or 0.0) * later.losses
        return Point(
            begin=self.begin,
            end=later.end,
            window=later.window,
            happened=self.happened.plus(later.happened),
            loss=total / losses if losses else None,
            losses=losses,
            grad_norm=max(_known(self.grad_norm, later.grad_norm), default=None),
            scale=self.scale if later.scale is None else later.scale,
            least_scale=min(_known(self.least_scale, later.least_scale), default=None),
        )


class Trace(msgspec.Struct):
    """The points of a run, oldest first; the last one still grows."""

    points: list[Point] = []
    seconds: float = FINEST_SECONDS
    """How long a point is now."""
    last: Totals | None = None

    def add(self, now: float, snapshot: Snapshot, counts: Counts) -> None:
        """Take in a snapshot that came at `now`; `counts` are those of the daemon, which only grow.

        A clock that was set back begins the trace anew: its points would lie in the future.
        """
        if self.points and now < self.points[-1].end:
            self.points.clear()
        totals = Totals.of(counts)
        point = _point(now, snapshot, totals.minus(self.last or totals), self.points)
        self.last = totals
        if self.points and now - self.points[-1].begin <= self.seconds:
            self.points[-1] = self.points[-1].plus(point)
            return
        if len(self.points) == MOST:
            self._thin()
        self.points.append(point)

    def rates(self) -> tuple[float, float, float] | None:
        """Windows, samples and tokens per second of late; None until two snapshots have come."""
        if not self.points:
            return None
        end, begin, happened = self.points[-1].end, self.points[-1].begin, Totals()
        for point in reversed(self.points):
            begin, happened = point.begin, happened.plus(point.happened)
            if end - begin >= RATE_SECONDS:
                break
        span = end - begin
        return (happened.windows / span, happened.samples / span, happened.tokens / span) if span else None

    def _thin(self) -> None:
        self.points = [a.plus(b) for a, b in zip(self.points[::2], self.points[1::2], strict=True)]
        self.seconds *= 2


def _point(now: float, snapshot: Snapshot, happened: Totals, before: list[Point]) -> Point:
    loss = _finite(snapshot.loss)
    return Point(
        begin=before[-1].end if before else now,
        end=now,
        window=snapshot.window,
        happened=happened,
        loss=loss,
        losses=loss is not None,
        grad_norm=_finite(snapshot.grad_norm),
        scale=_finite(snapshot.scale),
        least_scale=_finite(snapshot.scale),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _known(*values: float | None) -> list[float]:
    return [value for value in values if value is not None]
