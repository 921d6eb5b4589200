"""What the time within a window goes to, as far as it is known from the windows that were sampled.

Seconds and not shares: shares of two times cannot be added, and a rate of seconds over a rate of windows is what a window
costs, whatever the period that is looked at.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec


class Activity(enum.StrEnum):
    """Every moment of a sampled window belongs to one."""

    DATA = "data"  # waited for, and moved to the device
    FORWARD = "forward"  # and the loss
    BACKWARD = "backward"  # with the exchange of gradients, where there are several ranks
    OPTIMIZER = "optimizer"
    OTHER = "other"  # judging, clipping, rewinding, and what ranks agree on


class Sampled(msgspec.Struct, kw_only=True):
    """Windows that were looked into, and their seconds by activity; replays included. Cumulative."""

    windows: int = 0
    seconds: dict[str, float] = msgspec.field(default_factory=lambda: dict.fromkeys(map(str, Activity), 0.0))

    @property
    def of_one(self) -> dict[str, float]:
        """Seconds of a window by activity, on average; nothing where none was sampled."""
        return {name: spent / self.windows for name, spent in self.seconds.items()} if self.windows else {}

    def add(self, seconds: Mapping[Activity, float]) -> None:
        """Take in a window."""
        self.windows += 1
        for activity, spent in seconds.items():
            self.seconds[activity] = self.seconds.get(activity, 0.0) + spent

    def plus(self, other: Sampled) -> Sampled:
        """The sum, as over two workers one after the other."""
        return Sampled(
            windows=self.windows + other.windows,
            seconds={
                name: self.seconds.get(name, 0.0) + other.seconds.get(name, 0.0)
                for name in (*self.seconds, *(name for name in other.seconds if name not in self.seconds))
            },
        )

    def copy(self) -> Sampled:
        """A copy that shares nothing with these."""
        return Sampled(windows=self.windows, seconds=dict(self.seconds))
