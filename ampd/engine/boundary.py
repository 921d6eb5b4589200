"""What happens between two windows, and nowhere else: replayed and ordered actions, pauses, policy.

A revision, an injection or a reset is an *action*. It takes effect here, gets the next sequence number, and is
reported with the window before which it took effect; the journal keeps that, and after a resume from an earlier
checkpoint the same actions come back in `schedule` and are applied at exactly the same windows. While that history
is being repeated, new actions wait: they come after it, or the numbers that were once given out would not hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

import msgspec

from ampd.core import messages as m
from ampd.core import objections
from ampd.core.change import change, differences
from ampd.core.config import JobConfig
from ampd.core.keys import value_of
from ampd.core.ledger import WindowRecord
from ampd.core.live import POLICY, Live
from ampd.core.objections import Objection
from ampd.core.policy import FallbackBudget, moves_dtype, raise_dtype
from ampd.core.precision import Precision
from ampd.core.protocol import Code
from ampd.engine.governed import Governed
from ampd.engine.ranks import Orders
from ampd.engine.replicas import Odd
from ampd.errors import ConfigError


class Boundary:
    """Applies actions to a trainer and keeps the live configuration; for the loop's thread."""

    def __init__(
        self,
        trainer: Governed,
        orders: Orders,
        report: Callable[[m.Report], None],
        job_file: JobConfig,
    ) -> None:
        self.live = Live()
        self.requested: list[m.Order] = []
        self.hold_reason = ""
        self.failure = ""
        self.is_rolling_back = False
        self.wants_snapshot = False  # the last crossing did more than its reports tell
        self._trainer, self._orders = trainer, orders
        self._report = report
        self._job_file = job_file
        self._schedule: deque[m.AppliedAction] = deque()
        self._pending: deque[m.Act] = deque()
        self._untold: deque[m.Applied] = deque()
        self._conclusion: m.Act | None = None  # of the trial, for the next boundary

    def resume(
        self, saved: Mapping[str, Any] | None, schedule: Sequence[m.AppliedAction], pending: Sequence[m.Act]
    ) -> None:
        """Take over the live configuration of a checkpoint, and what the journal says came after it."""
        if saved is not None:
            self.live = msgspec.convert(saved, Live)
            self._trainer.configure(change(self._job_file, self.live.overrides))
        to_come = [action for action in schedule if action.seq > self.live.seq]
        self._schedule = deque(sorted(to_come, key=lambda action: action.window))
        self._untold = deque(self.live.untold(schedule))
        told = {report.applied.request_id for report in self._untold}
        self._pending = deque(act for act in pending if act.request_id not in told)

    def has_work(self, window: int) -> bool:
        """Whether crossing into `window` would do anything."""
        is_due = bool(self._schedule) and self._schedule[0].window <= window
        waits = bool(
            self._pending
            or self._untold
            or self.requested
            or self.hold_reason
            or self.failure
            or self._conclusion
        )
        is_ending = self.live.trial is not None and self.live.trial.until <= window
        return is_due or waits or is_ending or not self._orders.empty()

    def cross(self, window: int) -> None:
        """Apply everything that is due before `window`; other orders are left in `requested`. Never blocks."""
        self.wants_snapshot = False
        while self._untold:
            self._report(self._untold.popleft())
        while self._schedule and self._schedule[0].window <= window:
            self._repeat(self._schedule.popleft(), window)
        if self._conclusion is not None and not self._schedule:
            self.act(self._conclusion, window)
            self._conclusion = None
        while not self._orders.empty():
            self.take(self._orders.get())
        while self._pending and not self._schedule:
            self.act(self._pending.popleft(), window)

    def take(self, order: m.Order) -> None:
        """Keep an order: an action for `cross`, anything else for the loop."""
        if isinstance(order, m.Act):
            self._pending.append(order)
        else:
            self.requested.append(order)
            self.wants_snapshot = True

    def act(self, act: m.Act, window: int) -> None:
        """Carry out one ordered action; reports Applied, or Refused with nothing changed."""
        if (objection := self.live.objection(act.action, window, self._trainer.total_windows)) is not None:
            self._refuse(act, objection)
            return
        try:
            self._carry_out(self._applied(act, window))
        except ConfigError as error:
            self._refuse(act, objections.of_error(Code.APPLY_FAILED, error))

    def judge(self, record: WindowRecord) -> None:
        """Policy after a window: the fallback budget, and what a window that was never applied leads to."""
        budget = self.live.budget.enter(record.epoch)
        if record.replays and any(rung == Precision.FLOAT32 for _cause, rung in record.replays):
            budget = budget.spend()
        self.live.budget = budget
        if record.skipped is not None:
            self._react_to_skip(record)
        if budget.is_passed(self._trainer.config.amp):
            self._react_to_limit(record, budget)
        self.watch(record)

    def watch(self, record: WindowRecord) -> None:
        """Look at the trial after a window. How it ended in a history that is repeated comes from there."""
        self.live.enter(record)
        if not self._schedule and self._conclusion is None:
            self._conclusion = self.live.conclusion()

    def _applied(self, act: m.Act, window: int) -> m.AppliedAction:
        """The action that an order is, with its number; raises ConfigError."""
        return m.AppliedAction(
            seq=self.live.seq + 1, window=window, revision=self.live.revision, action=self.live.resolved(act.action),
            request_id=act.request_id, author=act.author, reason=act.reason,
        )  # fmt: skip

    def _refuse(self, act: m.Act, why: Objection) -> None:
        self._report(
            m.Refused(
                request_id=act.request_id, code=why.code, message=why.message, field=why.field, hint=why.hint
            )
        )

    def _repeat(self, action: m.AppliedAction, window: int) -> None:
        """Apply an action of the journal again; what was valid then is valid now, or the job file has changed."""
        try:
            self._carry_out(msgspec.structs.replace(action, window=window))
        except ConfigError as error:
            self.live.seq = max(self.live.seq, action.seq)
            self._report(
                m.Warned(
                    topic="journal", message=f"a change of the journal no longer fits the job file: {error}"
                )
            )

    def _carry_out(self, applied: m.AppliedAction) -> None:
        old, choice = self._trainer.config, self._trainer.choice
        match applied.action:
            case m.Configure():
                self._configure(applied.action, applied.window)
            case m.Inject(fault=fault, windows=windows, rank=rank):
                self._trainer.injector.arm(fault, windows, rank)
            case m.Reset(what=what):
                self._reset(what)
            case m.Avoid(cause=cause):
                self.live.avoid = cause
            case m.Divide(parts=parts):
                self._trainer.divide(parts)
            case m.Confirm():
                self.live.confirm()
            case _:
                assert_never(applied.action)
        if isinstance(applied.action, m.Configure) and (applied.author, applied.action.reverts) == (
            POLICY,
            None,
        ):
            self.live.budget = msgspec.structs.replace(self.live.budget, acted=True)
        report = m.Applied(
            applied=msgspec.structs.replace(applied, revision=self.live.revision),
            differences=differences(old, self._trainer.config), choice=self._trainer.choice, lr=self._trainer.next_lr,
        )  # fmt: skip
        is_told_whole = _is_plain(applied.action) and self._trainer.choice == choice
        self.wants_snapshot = self.wants_snapshot or not is_told_whole
        self.live.tell(report)
        self._report(report)

    def _configure(self, action: m.Configure, window: int) -> None:
        """A dropped key takes what the job file says now, which may be another value than when it was dropped."""
        dropped = {key: value_of(self._job_file, key) for key in action.dropped}
        self._trainer.configure(change(self._trainer.config, action.changes | dropped))
        self.live.take(action, window, self._job_file)

    def _reset(self, what: str) -> None:
        match what:
            case "stats":
                self._trainer.ledger.reset_span()
            case "scaler":
                self._trainer.reset_scale()
            case _:
                self.live.budget = FallbackBudget(epoch=self.live.budget.epoch)

    def _react_to_skip(self, record: WindowRecord) -> None:
        message = (
            f"window {record.window} is not finite even at {record.precision.value} (cause: {record.skipped})"
        )
        match self._trainer.config.amp.on_bad_window:
            case "rollback":
                self._roll_back(record)
            case "pause":
                self.hold_reason = message
            case "abort":
                self.failure = message

    def _roll_back(self, record: WindowRecord) -> None:
        """Write into the journal that the window is to be passed over; the loop then ends for a new one."""
        assert record.skipped is not None, "only a window that was not applied leads back"
        if self.is_rolling_back:
            return  # one at a time: what else was bad will be met again
        self.is_rolling_back = True
        self._report(m.RolledBack(window=record.window, cause=record.skipped))
        self.bequeath(m.Avoid(cause=record.skipped), record.window)

    def part(self, odd: Odd | None, window: int) -> None:
        """Do what the job file says where ranks no longer have the same weights."""
        if odd is None:
            return
        self._report(m.Diverged(window=window, ranks=odd.ranks, parameter=odd.parameter))
        which = f"rank{'s' * (len(odd.ranks) > 1)} {', '.join(map(str, odd.ranks))}"
        message = f"{which} no longer has the weights of the rest (first in {odd.parameter})"
        match self._trainer.config.distributed.on_divergence:
            case "pause":
                self.hold_reason = message
            case "abort":
                self.failure = message

    def bequeath(self, action: m.Action, window: int, reason: str = "") -> None:
        """Have the journal say what whoever comes next does before `window`; nothing changes here."""
        seq = max([self.live.seq, *(past.seq for past in self._schedule)]) + 1
        applied = m.AppliedAction(
            seq=seq, window=window, revision=self.live.revision, action=action, author=POLICY, reason=reason
        )
        self._report(m.Applied(applied=applied))

    def _react_to_limit(self, record: WindowRecord, budget: FallbackBudget) -> None:
        action = self._trainer.config.amp.on_fallback_limit
        self.live.budget = msgspec.structs.replace(budget, acted=True)
        if any(past.author == POLICY and moves_dtype(past.action) for past in self._schedule):
            return  # decided once already: the journal repeats it
        self._report(
            m.LimitReached(window=record.window, epoch=record.epoch, fallbacks=budget.used, action=action)
        )
        message = f"{budget.used} windows of epoch {record.epoch} fell back to float32"
        match action:
            case "pause":
                self.hold_reason = message
            case "abort":
                self.failure = message
            case "raise_dtype":
                self._raise_dtype(message)

    def _raise_dtype(self, reason: str) -> None:
        """At the next boundary, where every window is settled. A dtype that is on trial has failed it."""
        trial = self.live.trial
        if trial is not None and "amp.dtype" in trial.back:
            self._conclusion = self._conclusion or self.live.reverting(reason)
            return
        changes = raise_dtype(self._trainer.precision, self._trainer.capability)
        action = m.Configure(changes=changes)
        self._pending.append(m.Act(request_id="", action=action, author=POLICY, reason=reason))


def _is_plain(action: m.Action) -> bool:
    """A change that neither begins nor ends a trial."""
    return isinstance(action, m.Configure) and action.trial is None and action.reverts is None
