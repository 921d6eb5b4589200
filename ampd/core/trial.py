"""A trial: a change that is watched for some windows, and then confirmed, or reverted because a guard does not hold.

    begin -> enter(record), timed(seconds) after each window -> tripped()? revert : is_over? confirm

Everything here is values: history in, decision out. The loop of rank 0 keeps the present `Trial` in the live
configuration, so that it is in every checkpoint and goes on after a resume where it stood; how it ended is an action of
the journal like any other, repeated by a resumed run and never judged anew, because step times would not come out alike.

Counts and rates trip in the window that decides them. Means and medians are looked at from a quarter of the trial on:
the first windows after a change are not like the others (kernels are tuned, buffers allocated, the scale settles). The
scale is looked at after every window. A trial whose figure cannot be known at its end (no finite loss) is reverted.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import msgspec

from ampd.core import preceding
from ampd.core.guard import Figure, Guard
from ampd.core.ledger import WindowRecord
from ampd.core.preceding import Before, Preceding
from ampd.core.precision import Precision

_TIMES = 256
"""Step times that a median is taken of, the newest; bounds what a checkpoint holds."""
_SETTLED = 0.25
"""The part of a trial after which means and medians are looked at."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of a trial. `before` is filled in by the loop when it begins, and kept in the journal.

    `is_awaited`: who asked is answered at its end, not when the change is applied.
    """

    windows: int
    guards: tuple[Guard, ...]
    is_awaited: bool = True
    before: Before | None = None

    def begun(self, lately: Preceding) -> Terms:
        """With what was before it; raises ConfigError where a guard needs more than there is."""
        if self.before is not None:
            return self  # as the journal has it
        for guard in self.guards:
            if guard.is_relative:
                preceding.check(guard, lately)
        return msgspec.structs.replace(self, before=lately.summary())


class Mean(msgspec.Struct, frozen=True):
    """A mean in the making; what is not finite is left out."""

    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> Mean:
        """One more value."""
        return Mean(self.count + 1, self.total + value) if math.isfinite(value) else self

    @property
    def value(self) -> float | None:
        """The mean, or None where nothing was added."""
        return self.total / self.count if self.count else None


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the windows of a trial so far."""

    windows: int = 0
    fallbacks: int = 0
    skipped: int = 0
    loss: Mean = Mean()
    grad_norm: Mean = Mean()
    scale: float | None = None
    seconds: tuple[float, ...] = ()

    def enter(self, record: WindowRecord) -> Tally:
        """One more window."""
        return msgspec.structs.replace(
            self,
            windows=self.windows + 1,
            fallbacks=self.fallbacks + any(rung == Precision.FLOAT32 for _cause, rung in record.replays),
            skipped=self.skipped + (record.skipped is not None),
            loss=self.loss.add(record.loss),
            grad_norm=self.grad_norm.add(record.grad_norm),
            scale=record.scale,
        )

    def count(self, figure: Figure) -> int:
        """How many windows a counted figure has."""
        return self.fallbacks if figure is Figure.FALLBACK_RATE else self.skipped

    def measured(self, figure: Figure) -> float | None:
        """A mean or a median, as far as it is known."""
        match figure:
            case Figure.LOSS:
                return self.loss.value
            case Figure.GRAD_NORM:
                return self.grad_norm.value
            case Figure.STEP_TIME:
                return statistics.median(self.seconds) if self.seconds else None
        raise AssertionError(f"{figure} is not measured")


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """A guard that does not hold, or cannot any more; `value` is None where the figure is not known."""

    guard: Guard
    value: float | None
    window: int

    def __str__(self) -> str:
        x = "x" * self.guard.is_relative
        was = f"{self.guard.figure} is {self.value:.4g}{x}" if self.value is not None else "it is not known"
        return f"guard {self.guard} does not hold: {was} after window {self.window}"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The change that is on trial: made by `revision` at the boundary before window `since`.

    `back` are the values of its keys before it, `dropped` those among them that followed the job file.
    """

    revision: int
    since: int
    terms: Terms
    back: dict[str, Any]
    dropped: tuple[str, ...] = ()
    tally: Tally = Tally()

    @property
    def until(self) -> int:
        """The boundary at which it ends, where no guard trips before."""
        return self.since + self.terms.windows

    @property
    def is_over(self) -> bool:
        """All its windows were watched."""
        return self.tally.windows >= self.terms.windows

    def enter(self, record: WindowRecord) -> Trial:
        """One more window; those after its end do not count."""
        return self if self.is_over else msgspec.structs.replace(self, tally=self.tally.enter(record))

    def timed(self, seconds: float) -> Trial:
        """How long a window took."""
        times = (*self.tally.seconds, seconds)[-_TIMES:]
        return msgspec.structs.replace(self, tally=msgspec.structs.replace(self.tally, seconds=times))

    def untimed(self) -> Trial:
        """Without what was measured by a clock: after a resume the median is of the windows since."""
        return msgspec.structs.replace(self, tally=msgspec.structs.replace(self.tally, seconds=()))

    def tripped(self) -> Trip | None:
        """The first guard that does not hold, or None."""
        for guard in self.terms.guards:
            bounds = self._bounds(guard)
            window = self.since + self.tally.windows - 1
            if bounds is None:
                if self.is_over and guard.figure.is_measured:
                    return Trip(guard=guard, value=None, window=window)
            elif not guard.can_hold(*bounds):
                least, most = bounds
                return Trip(guard=guard, value=least if least >= guard.limit else most, window=window)
        return None

    def standing(self) -> OnTrial:
        """How it stands, for whoever asks."""
        return OnTrial(
            revision=self.revision, since=self.since, until=self.until, windows=self.tally.windows,
            keys=tuple(self.back), guards={str(guard): self._now(guard) for guard in self.terms.guards},
        )  # fmt: skip

    def _bounds(self, guard: Guard) -> tuple[float, float] | None:
        """The least and the most that the figure can be at the end; None where that cannot be said yet."""
        if guard.figure.is_counted:
            count, left = self.tally.count(guard.figure), self.terms.windows - self.tally.windows
            whole = self.terms.windows if guard.figure.is_share else 1
            return count / whole, (count + left) / whole
        is_settled = self.tally.windows >= _SETTLED * self.terms.windows
        value = self._now(guard) if is_settled or guard.figure is Figure.SCALE else None
        return None if value is None else (value, value)

    def _now(self, guard: Guard) -> float | None:
        """The figure so far, as the guard has it."""
        figure, tally = guard.figure, self.tally
        if figure is Figure.SCALE:
            return tally.scale
        if figure.is_counted:
            count = tally.count(figure)
            return count / max(1, tally.windows) if figure.is_share else count
        value = tally.measured(figure)
        before = self.terms.before.of(figure) if self.terms.before is not None else None
        if not guard.is_relative or value is None:
            return value
        return value / before if before else None


class OnTrial(msgspec.Struct, frozen=True, kw_only=True):
    """How a running trial stands: `windows` were watched so far; `guards` are figures as their guards have them."""

    revision: int
    since: int
    until: int
    windows: int
    keys: tuple[str, ...]
    guards: dict[str, float | None]
