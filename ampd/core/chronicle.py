"""What took effect in a job, as the next worker has to repeat it and as operators ask for it.

The journal on disk is the same in another form: it is what a chronicle begins with when a daemon starts, and every
action that a loop reports for the first time is entered here and written there.
"""

from __future__ import annotations

from ampd.core import edits
from ampd.core import messages as m
from ampd.core import stimuli as s
from ampd.core.config import JobConfig
from ampd.core.history import History, revision_of
from ampd.core.view import JobView


class Chronicle:
    """The actions of one job, oldest first, and the revisions that they made."""

    def __init__(self, job_file: JobConfig) -> None:
        self.history = History(job_file)  # on the job file, which is what every worker begins with
        self._schedule: list[m.AppliedAction] = []

    def restore(self, booted: s.Booted, view: JobView) -> None:
        """Begin with what the journal holds. Until a worker is ready, that is what makes its configuration."""
        self.history.add(*booted.revisions)
        self._schedule += booted.schedule
        for done in self._schedule:
            self.history.note(done)
            if isinstance(done.action, m.Configure):
                view.config = edits.repeated(view.config, done.action, self.history.job_file)
            view.revision = max(view.revision, done.revision)

    def start(self, view: JobView, pending: tuple[m.Act, ...]) -> m.Start:
        """What the next worker is told first."""
        return m.Start(
            config=self.history.job_file,
            directory=view.directory,
            schedule=tuple(self._schedule),
            pending=pending,
            leader=view.as_leader,
        )

    def enter(self, report: m.Applied, view: JobView, now: float) -> bool:
        """Whether the action is new: what a resumed worker repeats was entered, and answered, long ago."""
        done = report.applied
        if self._schedule and done.seq <= self._schedule[-1].seq:
            return False
        self._schedule.append(done)
        self.history.add(revision_of(done, report.differences, now))
        self.history.note(done)
        if isinstance(done.action, m.Configure):
            who = "policy" if done.author == "policy" else "operator"
            view.changes[who] = view.changes.get(who, 0) + 1
        return True
