"""The AMP ledger: what became of every window, with its cause.

    windows = applied + skipped + quarantined

holds after every window (`Counts.is_balanced`), and nothing is counted twice: `replays` counts every rung that was
tried, `fp32_fallbacks` counts a window once, when it reached the float32 rung. The ledger of a job survives
restarts in its checkpoints; a span is what came since the last `ampctl reset`, the process view what came since
this worker started (Prometheus counters are built from that one, so that they never run backwards).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import msgspec

from ampd.core.flops import Flops
from ampd.core.kept import Kept, saved
from ampd.core.precision import Precision
from ampd.core.term import Term


class Cause(Term):
    """Why an attempt was not finite; the label of every counter of trouble. `doc` says what each means."""

    FORWARD = "forward", "the loss was not finite: the forward pass overflowed"
    SCALE = "scale", "only gradients were not finite, under a loss scale: it was too large for them"
    BACKWARD = "backward", "only gradients were not finite, without a loss scale or at a smaller one too"
    CONSTANT = "constant", "a Python constant does not fit float16: a bug of the model"
    DATA = "data", "not finite in float32 either, and the inputs are not finite"
    MODEL = "model", "not finite in float32 either, with finite inputs"
    TRANSIENT = "transient", "the same attempt again was finite: suspect the hardware"


class Counts(msgspec.Struct, kw_only=True):
    """Counters of windows; all only ever grow."""

    windows: int = 0
    applied: int = 0
    quarantined: int = 0
    skipped: dict[str, int] = {}
    low_precision: int = 0
    fp32_fallbacks: dict[str, int] = {}
    replays: dict[str, dict[str, int]] = {}
    nonfinite_losses: int = 0
    scale_growths: int = 0
    scale_backoffs: int = 0
    clipped: int = 0
    samples: int = 0
    tokens: int = 0

    @property
    def is_balanced(self) -> bool:
        """The ledger's law: every window was applied, skipped or quarantined."""
        return self.windows == self.applied + sum(self.skipped.values()) + self.quarantined

    @property
    def fallback_ratio(self) -> float:
        """Windows that reached the float32 rung, of all windows (0..1)."""
        return sum(self.fp32_fallbacks.values()) / self.windows if self.windows else 0.0

    def minus(self, base: Counts) -> Counts:
        """What came on top of `base`, an earlier copy of these counts."""
        return Counts(
            **{
                name: _combined(getattr(self, name), getattr(base, name), operator.sub)
                for name in self.__struct_fields__
            }
        )

    def plus(self, other: Counts) -> Counts:
        """The sum of two counts, as over two workers one after the other."""
        return Counts(
            **{
                name: _combined(getattr(self, name), getattr(other, name), operator.add)
                for name in self.__struct_fields__
            }
        )

    def copy(self) -> Counts:
        """A copy that shares nothing with these counts."""
        return self.plus(Counts())


class Span(msgspec.Struct, kw_only=True):
    """Least, mean and greatest of a figure over a span, in bounded memory; NaN is left out."""

    count: int = 0
    total: float = 0.0
    least: float | None = None
    greatest: float | None = None
    left_out: int = 0

    @property
    def mean(self) -> float | None:
        """The mean of what was added, or None where nothing was."""
        return self.total / self.count if self.count else None

    def add(self, value: float) -> None:
        """Take in one value; one that is not finite is counted in `left_out` only."""
        if not math.isfinite(value):
            self.left_out += 1
            return
        self.count += 1
        self.total += value
        self.least = value if self.least is None or value < self.least else self.least
        self.greatest = value if self.greatest is None or value > self.greatest else self.greatest


class WindowRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one window: the row of losses.jsonl and the entry of the ledger.

    `zeros` is the share of gradients that were 0, taken in float16 without a loss scale, where they may have vanished.
    `skipped` is set for every window that was not applied, `quarantined` where it was kept to be looked at.
    `precision` is that of the attempt that was applied (or of the last one that was not); `replays` are the rungs
    tried after the first attempt, as (cause, rung).
    """

    window: int
    epoch: int
    loss: float
    precision: Precision
    first: Precision
    lr: float
    grad_norm: float
    scale: float | None = None
    zeros: float | None = None
    replays: tuple[tuple[Cause, str], ...] = ()
    skipped: Cause | None = None
    quarantined: bool = False
    clipped: bool = False
    samples: int = 0
    tokens: int = 0


class Ledger(msgspec.Struct, kw_only=True):
    """The counts of the job, and the span since the last reset; one thread, the step loop's, changes it.

    `kept` is what windows keep for backward and `flops` the work of one, measured by precision; `saved_bytes` what
    keeping less saved each window.
    """

    job: Counts = msgspec.field(default_factory=Counts)
    span_base: Counts = msgspec.field(default_factory=Counts)
    scale: Span = msgspec.field(default_factory=Span)
    loss: Span = msgspec.field(default_factory=Span)
    last_scale: float | None = None
    kept: dict[str, Kept] = {}
    flops: dict[str, Flops] = {}
    saved_bytes: Span = msgspec.field(default_factory=Span)

    @property
    def span(self) -> Counts:
        """The counts since the last reset."""
        return self.job.minus(self.span_base)

    def record(self, row: WindowRecord) -> None:
        """Enter one window."""
        counts = self.job
        counts.windows += 1
        counts.samples += row.samples
        counts.tokens += row.tokens
        counts.low_precision += row.first.is_low
        counts.clipped += row.clipped
        counts.nonfinite_losses += not math.isfinite(row.loss) or _fell_forward(row)
        if row.scale is not None:
            self._follow_scale(row.scale)
        if row.skipped is None:
            counts.applied += 1
        elif row.quarantined:
            counts.quarantined += 1
        else:
            _bump(counts.skipped, row.skipped)
        if row.replays:
            self._record_replays(row)

    def work_of(self, row: WindowRecord) -> dict[str, float]:
        """The operations of a window by dtype; none where it was not applied, or its precision was never counted."""
        counted = self.flops.get(row.precision)
        return counted.of(row.samples) if counted is not None and row.skipped is None else {}

    def observe(self, loss: float, scale: float | None, precision: Precision) -> None:
        """Take a window's figures into the span; NaN is counted, never averaged."""
        if (amount := saved(self.kept, precision)) is not None:
            self.saved_bytes.add(amount.bytes)
        self.loss.add(loss)
        if scale is not None:
            self.scale.add(scale)

    def reset_span(self) -> None:
        """Start a new span; the job's counts stay."""
        self.span_base = self.job.copy()
        self.scale, self.loss, self.saved_bytes = Span(), Span(), Span()

    def _follow_scale(self, scale: float) -> None:
        if self.last_scale is not None:
            self.job.scale_growths += scale > self.last_scale
            self.job.scale_backoffs += scale < self.last_scale
        self.last_scale = scale

    def _record_replays(self, row: WindowRecord) -> None:
        for cause, rung in row.replays:
            _bump(self.job.replays.setdefault(cause, {}), rung)
        reached = [cause for cause, rung in row.replays if rung == Precision.FLOAT32]
        if reached:
            _bump(self.job.fp32_fallbacks, reached[0])


def _fell_forward(row: WindowRecord) -> bool:
    return bool(row.replays) and any(cause == Cause.FORWARD for cause, _rung in row.replays)


def _bump(counter: dict[str, int], label: str) -> None:
    counter[str(label)] = counter.get(str(label), 0) + 1


def _combined(a: Any, b: Any, operation: Callable[[Any, Any], Any]) -> Any:
    """Two counters, or two tables of them with what one lacks taken as nothing."""
    if isinstance(a, dict) or isinstance(b, dict):
        a, b = a or {}, b or {}
        return {
            key: _combined(a.get(key, 0), b.get(key, 0), operation)
            for key in (*a, *(k for k in b if k not in a))
        }
    return operation(a, b)
