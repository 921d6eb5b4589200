"""Histograms that are counted where things happen and shown where they are scraped.

The worker's loop adds a number to a list and pushes the list with its snapshots, cumulative like all else there; the
supervisor adds what earlier workers counted, and /metrics shows the sum. The loop calls no metrics library, a lost
snapshot loses nothing, and no series of a histogram ever runs backwards. Bounds are fixed, and wide enough for a
laptop and a rack: bounds that a job file could move would make two jobs incomparable.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec

from ampd.core.activity import Sampled
from ampd.core.losses import Losses

WINDOW_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a toy on a CPU to a window of many micro-batches."""
CHECKPOINT_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""From a small model on a local disk to a large one on a busy file system."""
GRAD_NORM = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4)
"""Half decades around 1, where clipping happens; whole ones where a run dies down or blows up."""


class Histogram(msgspec.Struct, kw_only=True):
    """How many values fell between each two bounds; `counts` has one more entry than `bounds`, for what is above."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    @classmethod
    def over(cls, bounds: tuple[float, ...]) -> Self:
        """An empty one."""
        return cls(bounds=bounds, counts=[0] * (len(bounds) + 1))

    def add(self, value: float) -> None:
        """Count a value, a bound itself as below it; one that is not finite is left out: a counter tells of those."""
        if math.isfinite(value):
            self.counts[bisect.bisect_left(self.bounds, value)] += 1
            self.total += value

    def plus(self, other: Histogram) -> Histogram:
        """Both together; an AssertionError where their bounds differ, which is a bug of ours."""
        assert self.bounds == other.bounds, "histograms of one figure have the same bounds"
        counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        return Histogram(bounds=self.bounds, counts=counts, total=self.total + other.total)

    def copy(self) -> Histogram:
        """A copy that shares nothing with this one."""
        return Histogram(bounds=self.bounds, counts=list(self.counts), total=self.total)

    @property
    def cumulative(self) -> Sequence[int]:
        """How many values are at or below each bound, and at last how many there are."""
        return list(itertools.accumulate(self.counts))


class Distributions(msgspec.Struct, kw_only=True):
    """What the loop counts of every window, and of some (`sampled`); `flops` is the work of those that were applied, by dtype.

    Work is not in the ledger, whose counts are the same on all ranks: ranks whose shares are not alike measure it a little differently.
    """

    window_seconds: Histogram = msgspec.field(default_factory=lambda: Histogram.over(WINDOW_SECONDS))
    grad_norm: Histogram = msgspec.field(default_factory=lambda: Histogram.over(GRAD_NORM))
    flops: dict[str, float] = {}
    sampled: Sampled = msgspec.field(default_factory=Sampled)
    losses: Losses = msgspec.field(default_factory=Losses)

    def add_work(self, flops: Mapping[str, float]) -> None:
        """Count the work of a window."""
        for dtype, count in flops.items():
            self.flops[dtype] = self.flops.get(dtype, 0.0) + count

    def plus(self, other: Distributions) -> Distributions:
        """The sum, as over two workers one after the other."""
        return Distributions(
            window_seconds=self.window_seconds.plus(other.window_seconds),
            grad_norm=self.grad_norm.plus(other.grad_norm),
            flops={
                dtype: self.flops.get(dtype, 0.0) + other.flops.get(dtype, 0.0)
                for dtype in (*self.flops, *(dtype for dtype in other.flops if dtype not in self.flops))
            },
            sampled=self.sampled.plus(other.sampled),
            losses=self.losses.plus(other.losses),
        )

    def copy(self) -> Distributions:
        """A copy that shares nothing with these."""
        return Distributions(
            window_seconds=self.window_seconds.copy(), grad_norm=self.grad_norm.copy(), flops=dict(self.flops),
            sampled=self.sampled.copy(), losses=self.losses.plus(Losses()),
        )  # fmt: skip
