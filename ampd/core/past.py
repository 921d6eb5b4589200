"""The results of questions about what was: revisions, how two of them differ, and events.

Plain data, like those of `core.replies`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ampd.core import keys, objections
from ampd.core import protocol as p
from ampd.core.change import Difference, differences
from ampd.core.history import History, Revision
from ampd.core.objections import Objection
from ampd.core.orders import AppliedAction, Confirm
from ampd.core.replies import Result, on_trial, rows
from ampd.core.ring import Ring
from ampd.core.view import JobView


def history(past: History, last: int | None) -> Result:
    """Every revision but the first, which is the job file; or the `last` of them."""
    chosen = past.revisions if last is None else past.revisions[-last:]
    return {"revisions": [_revision(revision, past.ends.get(revision.number)) for revision in chosen]}


def _revision(revision: Revision, end: AppliedAction | None) -> Result:
    return {
        "revision": revision.number,
        "window": revision.window,
        "time": revision.time,
        "author": revision.author,
        "reason": revision.reason,
        "changes": rows(revision.differences),
        "trial": _trial(revision, end),
        "reverts": revision.reverts,
    }


def _trial(revision: Revision, end: AppliedAction | None) -> Result | None:
    """What the revision was watched for, and how that ended; None for one that was not on trial."""
    if end is None:
        running = on_trial(revision.trial, "running")
        return running and running | {"window": None}
    outcome = "confirmed" if isinstance(end.action, Confirm) else "reverted"
    told = on_trial(revision.trial, outcome, end.reason or f"by {end.author}")
    return told and told | {"window": end.window}


def diff(past: History, view: JobView, command: p.Diff) -> Result:
    """From one revision to another. Raises ConfigError where there is no such revision."""
    old = past.config(command.old)
    new = view.config if command.new is None else past.config(command.new)
    return {
        "old": command.old,
        "new": view.revision if command.new is None else command.new,
        "changes": rows(_live(differences(old, new))),
    }


def overlay(past: History, view: JobView) -> Result:
    """The live keys that differ from the job file, each with the revision that moved it last."""
    moved = _live(differences(past.job_file, view.config))
    made = {key: revision for revision in past.revisions for key in revision.values}
    return {"changes": [_row(d, made.get(d.key)) for d in moved]}


def _row(moved: Difference, made: Revision | None) -> Result:
    return {
        "key": moved.key,
        "job_file": moved.old,
        "value": moved.new,
        "revision": made.number if made else None,
        "author": made.author if made else "",
        "reason": made.reason if made else "",
    }


def _live(moved: Iterable[Difference]) -> tuple[Difference, ...]:
    """What a worker found out about fixed keys is no change that anybody made."""
    return tuple(d for d in moved if keys.table()[d.key].live)


def events(ring: Ring, boot: str, command: p.Events) -> Result | Objection:
    """The next events after a number; an Objection where some of them are forgotten, or of another boot."""
    if command.boot not in ("", boot):
        return objections.other_boot(command.boot, boot)
    since = ring.first - 1 if command.since is None else command.since
    if since > ring.last:
        return objections.not_yet(since, ring.last)
    if since < ring.first - 1:
        return objections.compacted(since, ring.first)
    told = [msgspec.to_builtins(event) for event in ring.after(since, command.most)]
    return {"events": told, "last": ring.last}
