"""The revisions of a job: who changed what, when and why, and what each of them held.

Revision 1 is the job file. Every later one is an *overlay* over it: the live keys that were changed, with their
values; a key may also be dropped from the overlay, and follows the job file again. So what any revision held can be
told from the job file and the list of changes, nothing else is stored, and going back is only one more change.

Numbers are given by the loop; here is only the record of them. It is built from the journal when the daemon starts,
and a worker that repeats its schedule after a crash adds nothing to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ampd.core import change
from ampd.core.change import Difference
from ampd.core.config import JobConfig
from ampd.core.orders import AppliedAction, Configure, Confirm
from ampd.core.trial import Terms
from ampd.errors import ConfigError

JOB_FILE = 1
"""The number of what the job file says."""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted change. `values` is what it set, `differences` what that moved; `time` is in Unix seconds."""

    number: int
    window: int
    time: float
    author: str
    reason: str
    values: dict[str, Any]
    dropped: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    trial: Terms | None = None
    reverts: int | None = None


def revision_of(applied: AppliedAction, differences: Sequence[Difference], time: float) -> Revision | None:
    """The revision that an action made; None for one that makes none."""
    action = applied.action
    if not isinstance(action, Configure):
        return None
    return Revision(
        number=applied.revision, window=applied.window, time=time, author=applied.author, reason=applied.reason,
        values=action.changes, dropped=action.dropped, differences=tuple(differences),
        trial=action.trial, reverts=action.reverts,
    )  # fmt: skip


class History:
    """All revisions of one job, oldest first."""

    def __init__(self, job_file: JobConfig) -> None:
        self.job_file = job_file
        self.revisions: list[Revision] = []
        self.ends: dict[int, AppliedAction] = {}
        """How trials ended, by the revision that was on trial."""

    @property
    def last(self) -> int:
        """The number of the newest revision."""
        return self.revisions[-1].number if self.revisions else JOB_FILE

    def add(self, *revisions: Revision | None) -> None:
        """Take in what came next."""
        self.revisions += [revision for revision in revisions if revision is not None]

    def note(self, done: AppliedAction) -> None:
        """Take in how a trial ended, where an action ended one."""
        match done.action:
            case Confirm(revision=int(of)) | Configure(reverts=int(of)):
                self.ends[of] = done

    def overlay(self, number: int) -> dict[str, Any]:
        """The live keys that a revision held over the job file; raises ConfigError where there is no such one."""
        if not JOB_FILE <= number <= self.last:
            raise ConfigError(
                f"there is no revision {number}: this job has {_range(self.last)}",
                field="revision",
                hint="`ampctl history` lists them",
            )
        held: dict[str, Any] = {}
        for revision in self.revisions:
            if revision.number <= number:
                held |= revision.values
                held = {key: value for key, value in held.items() if key not in revision.dropped}
        return held

    def config(self, number: int) -> JobConfig:
        """What a revision held; raises ConfigError where there is no such one, or it does not fit the job file."""
        return change.change(self.job_file, self.overlay(number))


def _range(last: int) -> str:
    return f"revisions 1 to {last}" if last > JOB_FILE else "revision 1 only, the job file"
