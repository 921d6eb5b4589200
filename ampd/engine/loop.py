"""The loop of a job: boundary -> attempt -> commit, until the last window or a stop.

    while windows are left, each phase declared before it begins:
        boundary: replayed actions, orders, pause, evaluation, checkpoint
        step:     one window through the pipeline (trainer)
        report:   a row of losses.jsonl, events, a few snapshots a second

It waits for nobody while it runs: orders arrive in a queue, reports leave through `report`, files belong to the writer.
It blocks only when it is paused, and for the last checkpoint. A checkpoint that the disk did not take is met at the next
boundary, as `checkpoint.on_disk_error` says; a run whose last one is not written has failed, for its result is not there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import assert_never

from ampd.core import messages as m
from ampd.core.config import JobConfig
from ampd.core.histogram import Distributions
from ampd.core.ledger import WindowRecord
from ampd.core.phase import Phase
from ampd.engine.boundary import Boundary
from ampd.engine.disk_hold import DiskHold, failure, hold_for, of_disk
from ampd.engine.emulation import Emulation
from ampd.engine.feed import Feed
from ampd.engine.mending import MustLeave
from ampd.engine.milestones import Milestones
from ampd.engine.ranks import Orders
from ampd.engine.replicas import compare
from ampd.engine.saves import Saves
from ampd.engine.snapshot import Telemetry
from ampd.engine.stopwatch import Stopwatch
from ampd.engine.trainer import Trainer
from ampd.engine.window import Window
from ampd.engine.writer import Files

_PAUSED_LOOK_SECONDS = 0.02
_LOOKS_PER_SNAPSHOT = 12  # a paused loop refreshes its snapshot four times a second


class Loop:
    """Drives a trainer from window `start` to the end of the job; owned by the worker's main thread."""

    def __init__(
        self, trainer: Trainer, boundary: Boundary, writer: Files, orders: Orders,
        report: Callable[[m.Report], None], declare: Callable[[Phase], None], start: int,
    ) -> None:  # fmt: skip
        self.window = start
        self._start = start
        self._trainer = trainer
        self._boundary, self._writer = boundary, writer
        self._orders, self._report, self._declare = orders, report, declare
        self._emulation = Emulation(trainer.parts.device, report)
        self._milestones = Milestones(trainer)
        self._warm: JobConfig | None = None  # what kernels were built for and tuned to
        self._watch = Stopwatch()
        self._distributions = Distributions(sampled=trainer.parts.breakdown.sampled)
        self._telemetry = Telemetry(
            trainer, writer.rows, report, self._watch, self._distributions, base=trainer.ledger.job.copy()
        )
        self._saves = Saves(trainer, boundary, writer, self._telemetry, self._watch, declare)
        self._met: m.SaveFailed | None = None  # trouble with the disk that was acted on
        self._stop: m.Stop | None = None

    def run(self) -> m.Finished | None:
        """Train until the job is complete, stopped or failed; saves at the end unless told not to.

        None: the run goes back to its last checkpoint, which takes a new worker.
        """
        device, breakdown = self._trainer.parts.device, self._trainer.parts.breakdown
        self._emulation.warn(self._trainer.choice)
        feed = Feed(self._trainer.parts.workload, self.window, ahead=2 if device.type == "cuda" else 0)
        try:
            while True:
                self._cross_boundary()
                if self._boundary.is_rolling_back:
                    self._saves.wait()
                    return None
                if (finished := self._finish()) is not None:
                    return finished
                self._declare_window()
                window = next(feed)
                breakdown.fetched()
                fetched = self._watch.lap("data")
                records = self._run(window)
                breakdown.end()
                self.window += 1
                trained = self._watch.lap("train")
                self._distributions.window_seconds.add(fetched + trained)
                self._boundary.live.timed(trained)
                self._account(records)
                self._watch.lap("telemetry")
        except MustLeave as leaving:
            self._boundary.bequeath(m.Divide(parts=leaving.parts), self.window, str(leaving))
            self._telemetry.push(self.window, self._boundary.live)  # why it leaves is counted
            raise
        finally:
            feed.close()

    def _run(self, window: Window) -> list[WindowRecord]:
        """One window: trained, or passed over where a rollback says so, which is news only to a trial."""
        cause, self._boundary.live.avoid = self._boundary.live.avoid, None
        if cause is None:
            return self._trainer.step(window)
        record = self._trainer.pass_over(window, cause)
        self._telemetry.record(record)
        self._boundary.watch(record)
        return []

    def _declare_window(self) -> None:
        is_warm = self._warm is self._trainer.config
        self._warm = self._trainer.config
        self._declare(Phase.WINDOW if is_warm else Phase.COMPILE)
        if is_warm:
            self._trainer.parts.breakdown.begin()

    def _account(self, records: Sequence[WindowRecord]) -> None:
        for record in records:
            self._telemetry.record(record)
            self._boundary.judge(record)
        self._telemetry.push_if_due(self.window, self._boundary.live)

    def _cross_boundary(self) -> None:
        if self.window > self._start and self._milestones.is_compared(self.window):
            weights, ranks = dict(self._trainer.parts.model.named_parameters()), self._trainer.parts.ranks
            self._boundary.part(compare(weights, ranks), self.window)
        trouble = self._new_trouble()
        if trouble is None and not self._is_eventful():
            return  # an order that came since then waits: where nothing was settled, nothing may change
        self._account(self._trainer.drain())
        if self._boundary.is_rolling_back:
            return  # what would be saved now is the other side of the window to go back over
        if trouble is not None:
            self._meet(trouble)
        if self._boundary.has_work(self.window):
            self._cross()
            if self._boundary.wants_snapshot:  # after an answer, its effect is seen
                self._telemetry.push(self.window, self._boundary.live)
        self._serve_requests()
        if self._boundary.hold_reason:
            self._hold(m.Pause(request_id="", reason=self._boundary.hold_reason))
            self._boundary.hold_reason = ""
        if self.window > self._start:
            self._do_what_is_due()
        self._saves.begin(self.window)

    def _cross(self) -> None:
        self._boundary.cross(self.window)
        self._emulation.warn(self._trainer.choice)

    def _is_eventful(self) -> bool:
        """Something may happen at this boundary that needs every window settled."""
        is_busy = bool(self._saves.are_wanted or self._stop)
        return is_busy or self._boundary.has_work(self.window) or self._milestones.is_one(self.window)

    def _do_what_is_due(self) -> None:
        if self._milestones.is_evaluated(self.window):
            self._evaluate()
        if self._milestones.is_saved(self.window):
            self._saves.want()

    def _serve_requests(self) -> None:
        while self._boundary.requested:
            self._serve(self._boundary.requested.pop(0))

    def _serve(self, order: m.Order) -> None:
        match order:
            case m.Checkpoint(request_id=request_id):
                self._saves.want(request_id)
            case m.Pause(until_saved=True):
                self._saves.want()
                self._hold_until_saved(order)
            case m.Pause():
                self._hold(order)
            case m.Resume(request_id=request_id):
                self._report(m.Going(window=self.window, request_id=request_id))
            case m.Stop():
                self._stop = order
            case m.Leave():
                self._stop = self._stop or m.Stop(save=False)
            case m.Start() | m.Act():
                raise AssertionError(f"{type(order).__name__} is not for the loop")
            case _:
                assert_never(order)

    def _new_trouble(self) -> m.SaveFailed | None:
        trouble = of_disk(self._writer.trouble)
        return trouble if trouble is not self._met else None

    def _meet(self, trouble: m.SaveFailed) -> None:
        """Do what the job file says about a checkpoint that the disk did not take."""
        match self._trainer.config.checkpoint.on_disk_error:
            case "pause":
                self._hold_until_saved(hold_for(trouble))
            case "abort":
                self._boundary.failure = failure(trouble)
        self._met = of_disk(self._writer.trouble)

    def _hold_until_saved(self, pause: m.Pause) -> None:
        """Hold until the disk takes a checkpoint; trouble that an operator chose to go on with is not met again."""
        self._saves.prove_room = True
        self._hold(pause, DiskHold(self._writer, self._saves.want, self._trainer.parts.ranks))
        self._saves.prove_room = False
        self._met = of_disk(self._writer.trouble)

    def _hold(self, pause: m.Pause, until: DiskHold | None = None) -> None:
        """Stay at this boundary until resumed or stopped, or `until` it is over; actions and checkpoints go on."""
        self._telemetry.push(self.window, self._boundary.live)
        self._tell_hold(pause, until)
        self._watch.lap("train")
        while self._stop is None:
            order = self._next_held_order()
            self._watch.lap("paused")
            if isinstance(order, m.Resume):
                self._report(m.Going(window=self.window, request_id=order.request_id))
                return
            if isinstance(order, m.Pause):
                until = until if order.until_saved else None  # else it is somebody's now, who will end it
                self._tell_hold(order, until)
            self._serve_held(order)
            if until is not None and until.is_over(self._trainer.config.checkpoint):
                self._report(m.Going(window=self.window))
                return

    def _tell_hold(self, pause: m.Pause, until: DiskHold | None) -> None:
        self._report(
            m.Holding(
                window=self.window, reason=pause.reason, request_id=pause.request_id, until_saved=until is not None
            )
        )  # fmt: skip

    def _next_held_order(self) -> m.Order | None:
        self._declare(Phase.PAUSED)
        if self._boundary.requested:
            return self._boundary.requested.pop(0)
        # No get(timeout): CPython's SimpleQueue waits for ever where the time is up before it begins to wait.
        for _ in range(_LOOKS_PER_SNAPSHOT):
            self._trainer.parts.ranks.confer()
            if not self._orders.empty():
                return self._orders.get()
            time.sleep(_PAUSED_LOOK_SECONDS)
        return None

    def _serve_held(self, order: m.Order | None) -> None:
        match order:
            case m.Pause():
                pass  # told of already
            case m.Act():
                self._boundary.take(order)
                self._cross()
            case _ if order is not None:
                self._serve(order)
        self._saves.begin(self.window)
        self._telemetry.push(self.window, self._boundary.live)

    def _evaluate(self) -> None:
        self._declare(Phase.EVALUATION)
        self._watch.lap("train")
        figures = dict(self._trainer.evaluate())
        seconds = self._watch.lap("evaluate")
        self._telemetry.figures = figures
        self._saves.evaluated(self.window, figures)
        self._report(m.Evaluated(window=self.window, figures=figures, seconds=seconds))

    def _finish(self) -> m.Finished | None:
        """The result, where the run ends at this boundary."""
        if self._boundary.failure:
            return self._end("failed", save=False, message=self._boundary.failure)
        if self._stop is not None:
            return self._end("stopped", save=self._stop.save)
        if self.window >= self._trainer.total_windows:
            return self._end("completed", save=True)
        return None

    def _end(self, result: m.Result, *, save: bool, message: str = "") -> m.Finished:
        self._saves.wait(patiently=save)
        trouble = self._save_last(may_hold=result == "completed") if save else None
        if trouble is not None:
            result, message = "failed", failure(trouble)
        self._telemetry.flush()
        self._telemetry.push(self.window, self._boundary.live)
        return m.Finished(
            result=result,
            window=self.window,
            message=message,
            hint="make room and start again: it goes on from the checkpoint before" if trouble else "",
            request_id=self._stop.request_id if self._stop is not None else "",
            exit_code=int(result == "failed"),
        )

    def _save_last(self, *, may_hold: bool) -> m.SaveFailed | None:
        """Save this state for everyone who waits for it; returns why it could not be. A run that is told to stop does not hold."""
        trouble = of_disk(self._saves.finish(self.window))
        if trouble is not None and may_hold and self._trainer.config.checkpoint.on_disk_error == "pause":
            self._hold_until_saved(hold_for(trouble))
            self._saves.wait()
        return self._writer.trouble
