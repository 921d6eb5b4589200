"""What the loop tells the outside: events at once, everything else as a few cumulative snapshots a second.

A window in which nothing happened is only put aside, and taken in with all others when the next snapshot is due: the same
work on many records in a row finds its code and data in the processor's cache, between two windows it never does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import msgspec

from ampd.core import messages as m
from ampd.core.histogram import Distributions
from ampd.core.kept import saved
from ampd.core.ledger import Counts, WindowRecord
from ampd.core.live import Live
from ampd.core.usage import Usage
from ampd.engine.hardware import hardware_of
from ampd.engine.memory import allocator_retries, memory_in_use, memory_limit
from ampd.engine.stopwatch import Stopwatch
from ampd.engine.trainer import Trainer

_PUSH_SECONDS = 0.2  # at least 4 a second are promised


class Telemetry:
    """Turns window records into rows, events and snapshots; for the loop's thread."""

    def __init__(
        self, trainer: Trainer, rows: Callable[[Sequence[WindowRecord]], None],
        report: Callable[[m.Report], None], watch: Stopwatch, distributions: Distributions, *, base: Counts,
    ) -> None:  # fmt: skip
        self.figures: dict[str, float] = {}
        self._trainer = trainer
        self._memory_limit = memory_limit(trainer.parts.device)
        self._hardware = hardware_of(trainer.parts.device)
        self._keep_rows, self._report = rows, report
        self._watch, self._distributions = watch, distributions
        self._base = base  # the job's counts before this process
        self._aside: list[WindowRecord] = []  # not yet taken in
        self._rows: list[WindowRecord] = []  # not yet handed over
        self._scale: float | None = None  # of the last record
        self._last: WindowRecord | None = None
        self._last_finite: WindowRecord | None = None
        self._pushed = 0.0
        self._is_stuck = False
        self._skipped_in_a_row = 0
        self._has_warned_of_zeros = False

    def record(self, record: WindowRecord) -> None:
        """One window; reports trouble at once."""
        self._aside.append(record)
        is_news = record.replays or record.skipped is not None or record.zeros is not None
        if is_news or record.scale != self._scale:
            self._scale = record.scale
            self._take_in()

    def push_if_due(self, window: int, live: Live) -> None:
        """Hand over rows and a snapshot, a few times a second."""
        if time.perf_counter() - self._pushed >= _PUSH_SECONDS:
            self.flush()
            self.push(window, live)

    def flush(self) -> None:
        """Hand over the rows so far."""
        self._take_in()
        if self._rows:
            self._keep_rows(self._rows)
            self._rows = []

    def _take_in(self) -> None:
        for record in self._aside:
            self._enter(record)
        self._rows += self._aside
        self._aside = []

    def _enter(self, record: WindowRecord) -> None:
        self._distributions.grad_norm.add(record.grad_norm)
        self._distributions.losses.add(record.loss)
        self._distributions.add_work(self._trainer.ledger.work_of(record))
        self._skipped_in_a_row = 0 if record.skipped is None else self._skipped_in_a_row + 1
        if (
            record.scale is not None
            and self._last is not None
            and self._last.scale not in (None, record.scale)
        ):
            self._report_scale(self._last.scale, record)
        self._last = record
        if math.isfinite(record.loss):
            self._last_finite = record
        if record.replays or record.skipped is not None:
            self._report_trouble(record)
        self._watch_floor(record)
        if record.zeros is not None and not self._has_warned_of_zeros:
            self._has_warned_of_zeros = True
            message = f"float16 without a loss scale: {record.zeros:.1%} of the gradients of window {record.window} are zero"
            self._report(m.Warned(topic="unscaled-float16", message=message))

    def push(self, window: int, live: Live) -> None:
        """Send a snapshot now."""
        self._take_in()
        self._pushed = time.perf_counter()
        trainer, ledger, last = self._trainer, self._trainer.ledger, self._last_finite
        self._report(
            m.Snapshot(
                rank=trainer.parts.ranks.rank, window=window, total_windows=trainer.total_windows, revision=live.revision,
                epoch=window // trainer.parts.workload.windows_per_epoch, precision=trainer.precision,
                counts=ledger.job.minus(self._base), job=ledger.job.copy(), span=ledger.span,
                span_scale=msgspec.structs.replace(ledger.scale), span_loss=msgspec.structs.replace(ledger.loss), loss=last.loss if last else None,
                grad_norm=last.grad_norm if last else None, lr=trainer.next_lr,
                scale=self._last.scale if self._last else None, seconds=dict(self._watch.seconds),
                memory=memory_in_use(trainer.parts.device), memory_limit=self._memory_limit, hardware=self._hardware, usage=self._usage(), figures=self.figures, zeros=self._last.zeros if self._last else None,
                kept=dict(ledger.kept), saved=saved(ledger.kept, trainer.precision), distributions=self._distributions.copy(),
                skipped_in_a_row=self._skipped_in_a_row, trial=live.trial.standing() if live.trial is not None else None,
                worked=trainer.parts.ranks.worked,
            )
        )  # fmt: skip

    def _usage(self) -> Usage:
        parts = self._trainer.parts
        return Usage(allocator_retries=allocator_retries(parts.device), shortages=parts.shortages.count)

    def _report_scale(self, old: float | None, record: WindowRecord) -> None:
        assert old is not None and record.scale is not None
        self._report(m.ScaleMoved(window=record.window, old=old, new=record.scale))

    def _watch_floor(self, record: WindowRecord) -> None:
        """Say once, until the scale leaves its floor, that windows are bad although it cannot fall further."""
        if record.scale is None or record.scale > self._trainer.config.amp.min_scale:
            self._is_stuck = False
        elif (record.replays or record.skipped) and not self._is_stuck:
            self._is_stuck = True
            self._report(m.ScaleStuck(window=record.window, scale=record.scale))

    def _report_trouble(self, record: WindowRecord) -> None:
        if record.replays:
            applied_at = record.precision if record.skipped is None else None
            cause, _rung = record.replays[-1]
            self._report(
                m.FellBack(window=record.window, cause=cause, tried=record.first, applied_at=applied_at)
            )
        if record.skipped is not None:
            self._report(m.Skipped(window=record.window, cause=record.skipped))
