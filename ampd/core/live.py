"""What live changes have made of the job file, as the loop of rank 0 has it; part of every checkpoint.

It also decides what only the loop can: whether an action fits what holds at this boundary, what going back from a
trial means, and how a trial ends. The boundary carries out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ampd.core import objections
from ampd.core.config import JobConfig
from ampd.core.flights import MOST_IN_FLIGHT
from ampd.core.keys import value_of
from ampd.core.ledger import Cause, WindowRecord
from ampd.core.messages import Applied
from ampd.core.objections import Objection
from ampd.core.orders import Act, Action, AppliedAction, Asked, Cancel, Configure, Confirm
from ampd.core.policy import FallbackBudget
from ampd.core.preceding import Preceding
from ampd.core.trial import Terms, Trial

POLICY = "policy"
"""The author of what nobody asked for."""


class Live(msgspec.Struct, kw_only=True):
    """Revision and number of the last action, the overlay over the job file, and what policy remembers."""

    revision: int = 1
    seq: int = 0
    overrides: dict[str, Any] = {}
    budget: FallbackBudget = FallbackBudget()
    avoid: Cause | None = None
    told: tuple[Applied, ...] = ()
    """The last actions as they were reported: a daemon that was killed may not have written them down."""
    trial: Trial | None = None
    preceding: Preceding = msgspec.field(default_factory=Preceding)

    def lasting(self) -> Live:
        """What a checkpoint holds: all but measured times, or no two runs would have the same checkpoints."""
        untimed = msgspec.structs.replace(self.preceding, seconds=[])
        trial = self.trial.untimed() if self.trial is not None else None
        return msgspec.structs.replace(self, preceding=untimed, trial=trial)

    def tell(self, report: Applied) -> None:
        """An action took effect; what fits into one boundary is remembered."""
        self.seq = max(self.seq, report.applied.seq)  # a window passed over comes before lower numbers
        self.told = (*self.told, msgspec.structs.replace(report, choice=None, lr=None))[-MOST_IN_FLIGHT:]

    def untold(self, schedule: Sequence[AppliedAction]) -> tuple[Applied, ...]:
        """What a journal lacks: a checkpoint is ahead of it where its daemon was killed first."""
        known = max((action.seq for action in schedule), default=0)
        return tuple(report for report in self.told if report.applied.seq > known)

    def enter(self, record: WindowRecord) -> None:
        """One more window: of the trial, or of what a later one is compared with."""
        if self.trial is None:
            self.preceding.enter(record)
        else:
            self.trial = self.trial.enter(record)

    def timed(self, seconds: float) -> None:
        """How long a window took."""
        if self.trial is None:
            self.preceding.timed(seconds)
        else:
            self.trial = self.trial.timed(seconds)

    def conclusion(self) -> Act | None:
        """How the trial ends by itself, as soon as that is known."""
        if self.trial is None:
            return None
        trip = self.trial.tripped()
        if trip is not None:
            return self.reverting(str(trip))
        if not self.trial.is_over:
            return None
        held = f"every guard held for {self.trial.terms.windows} windows"
        return Act(request_id="", action=Confirm(), author=POLICY, reason=held)

    def reverting(self, reason: str) -> Act:
        """The order that ends the trial by going back."""
        return Act(request_id="", action=self._going_back(), author=POLICY, reason=reason)

    def objection(self, action: Asked, window: int, total: int) -> Objection | None:
        """Why an action does not fit what holds before `window`; `total` is 0 where the job's length is not known."""
        trial = self.trial
        match action:
            case Configure(base=base) if base not in (None, self.revision):
                return objections.moved_on(base, self.revision)
            case Configure(trial=Terms(), reverts=None) if trial is not None:
                return objections.second_trial(trial.revision, trial.until)
            case Configure(changes=changes, dropped=dropped, reverts=None) if trial is not None:
                contested = sorted({*changes, *dropped} & set(trial.back))
                return objections.on_trial(contested, trial.revision, trial.until) if contested else None
            case Configure(trial=Terms(windows=windows)) if total and window + windows > total:
                return objections.too_long(windows, total - window)
            case Confirm() | Cancel() if trial is None:
                return objections.no_trial()
        return None

    def resolved(self, action: Asked) -> Action:
        """The action as it takes effect and is repeated; raises ConfigError where a trial lacks what it is compared with."""
        match action:
            case Cancel():
                return self._going_back()
            case Confirm():
                return Confirm(revision=self._running.revision)
            case Configure(trial=Terms() as terms):
                return msgspec.structs.replace(action, trial=terms.begun(self.preceding))
        return action

    def take(self, action: Configure, window: int, job_file: JobConfig) -> None:
        """A change took effect before `window`: the next revision."""
        held = self.overrides
        changed = held | action.changes
        self.overrides = {key: value for key, value in changed.items() if key not in action.dropped}
        self.revision += 1
        if action.trial is not None:
            self.trial = Trial(
                revision=self.revision, since=window, terms=action.trial,
                back={key: held.get(key, value_of(job_file, key)) for key in action.changes},
                dropped=tuple(key for key in action.changes if key not in held),
            )  # fmt: skip
        elif action.reverts is not None:
            self.trial = None  # what holds again is what held in the windows before it
        else:
            self.preceding = Preceding()

    def confirm(self) -> None:
        """The change stays."""
        self.trial, self.preceding = None, Preceding()

    @property
    def _running(self) -> Trial:
        assert self.trial is not None, "what does not fit was refused"
        return self.trial

    def _going_back(self) -> Configure:
        trial = self._running
        return Configure(changes=trial.back, dropped=trial.dropped, reverts=trial.revision)
