"""The windows before a change: what a trial's relative guards compare with.

They are those since the configuration last changed, because a mean over two configurations is of neither; bounded,
since they are in every checkpoint: a trial that is begun again after a crash must not lack them. Step times are not in
checkpoints, which would differ between any two runs, so they count from a restart on.
"""

from __future__ import annotations

import math
import statistics

import msgspec

from ampd.core.guard import Figure, Guard
from ampd.core.ledger import WindowRecord
from ampd.errors import ConfigError

MOST = 64
LEAST = 8
"""A mean or median of fewer says nothing."""


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures were before a change; None where no finite one was seen."""

    windows: int
    loss: float | None
    grad_norm: float | None
    step_time: float | None

    def of(self, figure: Figure) -> float | None:
        """The figure that a relative guard compares with."""
        known: dict[Figure, float | None] = {
            Figure.LOSS: self.loss, Figure.GRAD_NORM: self.grad_norm, Figure.STEP_TIME: self.step_time,
        }  # fmt: skip
        return known.get(figure)


class Preceding(msgspec.Struct, kw_only=True):
    """The last windows since the configuration last changed, bounded: what `Before` is taken from.

    Grown in place and not replaced, since that is done in every window of every run, whether or not a trial follows.
    """

    windows: int = 0
    losses: list[float] = []
    norms: list[float] = []
    seconds: list[float] = []

    def enter(self, record: WindowRecord) -> None:
        """One more window."""
        self.windows = min(self.windows + 1, MOST)
        _push(self.losses, record.loss)
        _push(self.norms, record.grad_norm)

    def timed(self, seconds: float) -> None:
        """How long a window took."""
        _push(self.seconds, seconds)

    def known(self, figure: Figure) -> int:
        """Of how many windows a measured figure is known."""
        values = {Figure.LOSS: self.losses, Figure.GRAD_NORM: self.norms, Figure.STEP_TIME: self.seconds}
        return len(values[figure])

    def summary(self) -> Before:
        """Means and the median."""
        return Before(
            windows=self.windows,
            loss=statistics.fmean(self.losses) if self.losses else None,
            grad_norm=statistics.fmean(self.norms) if self.norms else None,
            step_time=statistics.median(self.seconds) if self.seconds else None,
        )


def _push(values: list[float], value: float) -> None:
    if math.isfinite(value):
        values.append(value)
        if len(values) > MOST:
            del values[0]


def check(guard: Guard, preceding: Preceding) -> None:
    """Raise ConfigError where a relative guard has nothing to compare with."""
    before, known = preceding.summary().of(guard.figure), preceding.known(guard.figure)
    if known < LEAST or before is None:
        raise ConfigError(
            f"guard {guard} compares with before, and {guard.figure} is known of {known} windows since the last change "
            f"or restart: it needs {LEAST}",
            field="guards", hint="ask again a little later, or name guards without an x",
        )  # fmt: skip
    if before <= 0:
        raise ConfigError(
            f"guard {guard}: {guard.figure} was {before:.4g} before, and a multiple of that says nothing",
            field="guards", hint=f"give a limit without an x, for example {guard.figure}<{before + 1:.2g}",
        )  # fmt: skip
