"""The losses of windows as sums, so that the mean of any period is exact: what was added over how many there were.

A gauge knows the window that met the scrape; with 40 windows between two scrapes that is one of 40. Sums only grow, as a rate
needs it, so what is below 0 is added up for itself.
"""

from __future__ import annotations

import math

import msgspec


class Losses(msgspec.Struct, kw_only=True):
    """Of windows whose loss was finite. `positive` and `negative` are sums of sizes: the mean is their difference over `windows`."""

    windows: int = 0
    positive: float = 0.0
    negative: float = 0.0

    def add(self, loss: float) -> None:
        """Take in a window; one whose loss is not finite is left out, and counted elsewhere."""
        if not math.isfinite(loss):
            return
        self.windows += 1
        if loss < 0:
            self.negative -= loss
        else:
            self.positive += loss

    def plus(self, other: Losses) -> Losses:
        """The sum, as over two workers one after the other."""
        return Losses(
            windows=self.windows + other.windows,
            positive=self.positive + other.positive,
            negative=self.negative + other.negative,
        )
