"""Who waits for the end of a trial, and what they are told then.

The reply to a change on trial is final, so it comes when the trial is confirmed or reverted; a daemon that starts in
the middle of one takes the waiting over from the journal, and whoever asks again under the same id waits on.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ampd.core import replies
from ampd.core.change import Difference
from ampd.core.history import Revision
from ampd.core.orders import Act, AppliedAction, Configure, Confirm
from ampd.core.protocol import Done


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A change that took effect on trial, whose author is answered at the end."""

    applied: AppliedAction
    differences: tuple[Difference, ...]

    @property
    def act(self) -> Act:
        """The order that it was."""
        done = self.applied
        return Act(request_id=done.request_id, action=done.action, author=done.author, reason=done.reason)

    def reply(self, done: AppliedAction, boot: str) -> Done | None:
        """What its author is told when `done` ended the trial; None where it did not."""
        action = done.action
        match action:
            case Confirm(revision=self.applied.revision):
                outcome = "confirmed"
            case Configure(reverts=self.applied.revision):
                outcome = "reverted"
            case _:
                return None
        assert isinstance(self.applied.action, Configure), "only changes are on trial"
        trial = replies.on_trial(self.applied.action.trial, outcome, done.reason or f"by {done.author}")
        result = replies.changed(self.differences, dry_run=False, trial=trial)
        return Done(
            id=self.applied.request_id, boot=boot, revision=done.revision, window=done.window, result=result
        )


def is_awaited(done: AppliedAction) -> bool:
    """Whether an action is a trial whose author is answered at its end."""
    action = done.action
    return isinstance(action, Configure) and action.trial is not None and action.trial.is_awaited


def under_way(schedule: Sequence[AppliedAction], revisions: Sequence[Revision]) -> Watched | None:
    """The trial that a journal leaves without an end, where somebody is to be answered."""
    found: Watched | None = None
    differences = {revision.number: revision.differences for revision in revisions}
    for done in schedule:
        if is_awaited(done):
            found = Watched(applied=done, differences=differences.get(done.revision, ()))
        elif found is not None and found.reply(done, "") is not None:
            found = None
    return found
