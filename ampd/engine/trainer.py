"""One window at a time: attempt, commit, record. The only place that calls `optimizer.step()`.

A trainer knows nothing of orders, files or links; `Boundary` decides what happens between windows and `Loop` drives
both. Its whole state goes through `state_dict`, so that a trainer that loads it continues bit for bit.

Two modes. *sync*: a window's verdict is read before the next one begins. *adaptive*: in calm windows it is not; the
commit is gated on the device, and the host learns the verdict at a constant lag of one, when the next window is queued
already. A window that turns out bad then is run again through the whole pipeline and applied after its successor,
which is a valid step since the bad one changed nothing. Adaptive needs an optimizer that can be gated, and a workload
whose state is all in its model (what `capture` holds cannot be put back on the device).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import torch
from msgspec.structs import replace
from torch import Tensor

from ampd.core.activity import Activity
from ampd.core.config import JobConfig
from ampd.core.faults import Fault
from ampd.core.ledger import Cause, Ledger, WindowRecord
from ampd.core.policy import Calm
from ampd.core.precision import Capability, Choice, Precision, choose
from ampd.engine import state
from ampd.engine.assembly import Parts
from ampd.engine.execute import clear_gradients
from ampd.engine.inject import Injector
from ampd.engine.optim import can_be_gated, gated_step
from ampd.engine.pipeline import Abilities
from ampd.engine.probe import is_finite_at
from ampd.engine.rates import Rates, Schedule
from ampd.engine.stages.autocast import forward_context
from ampd.engine.stages.scaler import settle
from ampd.engine.window import Attempt, Outcome, Pending, Verdict, Window, flag_of
from ampd.engine.workload import Capturing, Evaluating
from ampd.errors import ConfigError, PipelineError


class Trainer:
    """Trains `parts` under a configuration that may change between windows; for one thread."""

    def __init__(
        self,
        config: JobConfig,
        parts: Parts,
        capability: Capability,
        total_windows: int,
        quarantine: Callable[[Outcome], None] = lambda _outcome: None,
        rates: Rates | None = None,
    ) -> None:
        self._quarantine = quarantine
        self._rates = rates or Schedule(total_windows)
        self.config, self.parts = config, parts
        self.capability, self.total_windows = capability, total_windows
        self._able = Abilities.of(parts.stages)
        self._can_defer = can_be_gated(parts.optimizer) and not isinstance(parts.workload, Capturing)
        self._refuse_unfit_replay(config)
        self.choice = self.choose(config)
        self.is_adaptive = self._is_adaptive(config)  # calm windows are judged one window late
        self._pending: Pending | None = None
        self._calm = Calm(risky_left=config.amp.risky_windows)

    @property
    def ledger(self) -> Ledger:
        """The job's ledger; the trainer is its only writer."""
        return self.parts.ledger

    @property
    def injector(self) -> Injector:
        """Where faults are armed for coming windows."""
        return self.parts.injector

    @property
    def precision(self) -> Precision:
        """What the next window is first attempted at."""
        return self.choice.precision

    @property
    def next_lr(self) -> float:
        """The learning rate of the next update."""
        return self._rates.after(self.ledger.job.applied, self.config.optim)

    def choose(self, config: JobConfig) -> Choice:
        """The precision that `config` means on this device; raises ConfigError where it is refused."""
        amp = config.amp
        return choose(amp.dtype, self.capability, require_native=amp.require_native, enabled=amp.enabled)

    def configure(self, config: JobConfig) -> None:
        """Take over a configuration between windows; raises ConfigError with nothing changed."""
        assert self._pending is None, "configuration changes only between settled windows"
        choice = self.choice if config.amp is self.config.amp else self.choose(config)
        self._refuse_unfit_replay(config)
        self.config, self.choice = config, choice
        self.is_adaptive = self._is_adaptive(config)
        self._calm = Calm(risky_left=config.amp.risky_windows)
        for stage in self._able.configurable:
            stage.configure(config)

    def _is_adaptive(self, config: JobConfig) -> bool:
        asked, is_cuda = config.amp.replay, self.parts.device.type == "cuda"
        return asked == "adaptive" or (asked == "auto" and is_cuda and self._can_defer)

    def _refuse_unfit_replay(self, config: JobConfig) -> None:
        if config.amp.replay == "adaptive" and not self._can_defer:
            raise ConfigError(
                'amp.replay = "adaptive" needs a fused optimizer and a workload without capture()',
                field="amp.replay", hint='use "sync" or "auto", or optim.fused = true in the job file',
            )  # fmt: skip

    def probe(self, window: Window) -> None:
        """Where dtype is "auto", try the chosen precision on a window of the model; what is not finite is not chosen.

        Changes nothing but the choice; waits for the device.
        """
        while self.config.amp.dtype == "auto" and self.precision.is_low:
            if is_finite_at(self.precision, window, self.parts):
                return
            unfit = (*self.capability.unfit, self.precision)
            self.capability = msgspec.structs.replace(self.capability, unfit=unfit)
            self.choice = self.choose(self.config)

    def reset_scale(self) -> None:
        """Put every stage that can be reset (the loss scale) back to where it began."""
        for stage in self._able.resettable:
            stage.reset()

    def divide(self, parts: int) -> None:
        """Have every stage that can run micro-batches in parts do so."""
        for stage in self._able.dividing:
            stage.divide(parts)

    def step(self, window: Window) -> list[WindowRecord]:
        """Run a window; returns the records of the windows that are settled by now, in order.

        Judged at once (sync, or risky): this window's, after one host sync per attempt. Deferred: the one before it,
        whose figures have arrived meanwhile; where it was bad, it is replayed now and both are settled.
        """
        self.parts.injector.enter(window.largest_share(self.parts.ranks.world))
        self.parts.injector.corrupt(self.parts.parameters)
        self.parts.ranks.align(self.parts.rewind.flats)
        if not self._may_defer():
            records = self.drain()
            return [*records, self._finish(self.parts.pipeline(self._attempt(window)), self.next_lr)]
        outcome = self.parts.pipeline(replace(self._attempt(window), is_deferred=True))
        before, self._pending = self._pending, None
        self._commit(outcome, self.next_lr if before is None else self._rate_after(before))
        if outcome.verdict is not Verdict.PENDING:
            return [*self._settle([before] if before else []), self._enter(outcome, self.next_lr)]
        return self._advance(
            before, Pending(outcome=outcome, lr=self.next_lr, fault=self.parts.injector.active)
        )

    def pass_over(self, window: Window, cause: Cause) -> WindowRecord:
        """Enter a window as skipped without running it; nothing is pending where actions are applied."""
        self.parts.injector.enter()  # a fault that was meant for it is spent
        attempt = self._attempt(window)
        unread = Outcome(attempt=attempt, losses=torch.empty(0), verdict=Verdict.NONFINITE, cause=cause)
        return self._enter(unread, self.next_lr)

    def drain(self) -> list[WindowRecord]:
        """Settle the window that is pending, if one is; waits for the device."""
        before, self._pending = self._pending, None
        return self._settle([before] if before else [])

    def evaluate(self) -> Mapping[str, float]:
        """The workload's figures on held-out data, at the present precision; leaves no trace in the run."""
        workload = self.parts.workload
        assert isinstance(workload, Evaluating), "the loop asks only workloads that can"
        generators = self.parts.rewind.generators()
        self.parts.model.eval()
        try:
            with torch.no_grad(), forward_context(self.precision, self.parts.device.type)():
                return self.parts.ranks.using(workload.evaluate)
        finally:
            self.parts.model.train()
            self.parts.rewind.set_generators(generators)

    def state_dict(self) -> dict[str, Any]:
        """Copies on the host of everything that the next window depends on; syncs with the device."""
        assert self._pending is None, "only settled windows are saved"
        # An adaptive step leaves a tensor there.
        self._rates.put(self.parts.optimizer, self.next_lr, self.config.optim)
        unfit = [precision.value for precision in self.capability.unfit]
        return {**state.capture(self.parts), "calm": msgspec.to_builtins(self._calm), "unfit": unfit}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        state.restore(self.parts, saved)
        self._calm = msgspec.convert(saved["calm"], Calm)
        unfit = tuple(Precision(name) for name in saved["unfit"])
        self.capability = msgspec.structs.replace(self.capability, unfit=unfit)
        self.choice = self.choose(self.config)

    def _attempt(self, window: Window) -> Attempt:
        return Attempt(window=window, precision=self.precision)

    def _may_defer(self) -> bool:
        return self.is_adaptive and not self._calm.is_risky(self.config.amp)

    def _advance(self, before: Pending | None, now: Pending) -> list[WindowRecord]:
        """Settle the window before this one; if it was bad, this one at once as well."""
        if before is None:
            self._pending = now
            return []
        outcome = settle(before.outcome, self.parts.ranks)
        if outcome.verdict is not Verdict.FINITE:
            return self._settle([before, now])
        records = [self._enter_late(outcome, before.lr)]
        self._pending = replace(now, lr=self.next_lr)
        return records

    def _settle(self, pending: Sequence[Pending]) -> list[WindowRecord]:
        """Enter pending windows in order; the bad ones are run again, after all that were good have been applied."""
        outcomes = [settle(entry.outcome, self.parts.ranks) for entry in pending]
        ahead = sum(outcome.verdict is Verdict.FINITE for outcome in outcomes)
        records = []
        for entry, outcome in zip(pending, outcomes, strict=True):
            if outcome.verdict is Verdict.FINITE:
                ahead -= 1
                records.append(self._enter_late(outcome, entry.lr))
            else:
                records.append(self._run_again(outcome, entry.fault, ahead))
        return records

    def _run_again(self, failed: Outcome, fault: Fault | None, ahead: int) -> WindowRecord:
        """A window that turned out bad, through the whole pipeline; `ahead` later ones are applied but not entered."""
        today, self.parts.injector.active = self.parts.injector.active, fault
        outcome = self.parts.pipeline(replace(self._attempt(failed.attempt.window), resolves=failed))
        self.parts.injector.active = today
        return self._finish(outcome, self._rates.after(self.ledger.job.applied + ahead, self.config.optim))

    def _enter_late(self, outcome: Outcome, lr: float) -> WindowRecord:
        """Enter a window that was applied while it was pending."""
        for stage in self._able.settling:
            stage.settled(outcome)
        limit = self.config.clip.max_norm
        was_clipped = outcome.clipped and limit is not None and outcome.norm + 1e-6 > limit
        return self._enter(replace(outcome, clipped=was_clipped), lr)

    def _finish(self, outcome: Outcome, lr: float) -> WindowRecord:
        """Commit a judged outcome, and enter it."""
        self._commit(outcome, lr)
        return self._enter(outcome, lr)

    def _commit(self, outcome: Outcome, lr: float | Tensor) -> None:
        """The one place of `optimizer.step()`: applied if finite, gated by its flag on the device if pending."""
        optimizer = self.parts.optimizer
        self.parts.breakdown.enter(Activity.OPTIMIZER)
        match outcome.verdict:
            case Verdict.FINITE:
                self._rates.put(optimizer, lr, self.config.optim)
                optimizer.step()
            case Verdict.PENDING:
                self._rates.put(optimizer, lr, self.config.optim)
                gated_step(optimizer, flag_of(outcome))
            case Verdict.UNJUDGED:
                raise PipelineError(
                    f"window {outcome.attempt.window.number} was not judged; slot SCALE must judge attempts"
                )
        if self.config.amp.clear_gradients_after_step:
            clear_gradients(self.parts.parameters)
        self.parts.breakdown.enter(Activity.OTHER)

    def _rate_after(self, before: Pending) -> float | Tensor:
        """The rate after a window whose verdict the host does not know: chosen on the device by its flag."""
        applied = self.ledger.job.applied
        if_bad, if_good = (self._rates.after(n, self.config.optim) for n in (applied, applied + 1))
        if if_bad == if_good:
            return if_good
        return torch.where(flag_of(before.outcome).reshape(()).ne(0), if_bad, if_good)

    def _enter(self, outcome: Outcome, lr: float) -> WindowRecord:
        window = outcome.attempt.window
        is_applied = outcome.verdict is Verdict.FINITE
        record = WindowRecord(
            window=window.number, epoch=window.epoch, loss=outcome.loss, precision=outcome.attempt.precision,
            first=self.precision, lr=lr, grad_norm=outcome.norm, scale=outcome.scale, zeros=outcome.zeros, replays=outcome.replays,
            skipped=None if is_applied else outcome.cause,
            quarantined=not is_applied and self.config.amp.on_bad_window == "quarantine", clipped=outcome.clipped, samples=window.samples, tokens=window.tokens,
        )  # fmt: skip
        self._calm = self._calm.after(was_finite=is_applied and not outcome.replays, amp=self.config.amp)
        self.ledger.record(record)
        if record.quarantined:
            self._quarantine(outcome)
        return record
