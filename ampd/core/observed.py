"""What a report says about the job, entered in its `JobView`: facts only, no decisions.

The supervisor decides about state and replies; here is what is simply true after a report. A worker's figures stay
in view while it is gone (the state says that they are old) and are folded into `past` when the next one is ready,
which is what keeps the counters of /metrics from running backwards over a restart.
"""

from __future__ import annotations

import math

import msgspec

from ampd.core import messages as m
from ampd.core.edits import rebased
from ampd.core.view import JobView


def observe(view: JobView, rank: int, report: m.Report, now: float) -> None:
    """Enter a report; those that say nothing lasting leave the view as it is."""
    view.heard[rank] = now
    match report:
        case m.Joined():
            _place(view, report)
        case m.Ready():
            _welcome(view, report)
        case m.Snapshot():
            _sample(view, rank, report, now)
        case m.Applied():
            _follow(view, report)
        case m.Saved():
            view.checkpoints += 1
            view.checkpoint_seconds.add(report.seconds)
            view.last_saved, view.last_saved_at = report, now
        case m.SaveFailed():
            view.checkpoint_failures[report.reason] = view.checkpoint_failures.get(report.reason, 0) + 1
            view.lately.failed_to_save(now)
        case m.Holding():
            view.hold = report
        case m.SetAside():
            view.checkpoints_set_aside += 1
        case m.LimitReached():
            view.limit_reached += 1
        case m.Lost():
            view.events_lost += report.events
        case m.Evaluated():
            _evaluate(view, report)
        case m.Finished():
            view.result = report
        case _:
            pass


def _place(view: JobView, joined: m.Joined) -> None:
    """Where this node stands among the others; whom it follows is known better from there."""
    view.first_rank, view.world = joined.first_rank, joined.world
    if view.leader is not None:
        view.leader = joined.leader


def _welcome(view: JobView, ready: m.Ready) -> None:
    """A new worker's model is built: the figures of the last one become the past."""
    last = view.snapshot
    view.past_usage = view.usage
    if last is not None:
        view.past = view.past.plus(last.counts)
        view.past_seconds = _sum(view.past_seconds, last.seconds)
        view.past_distributions = view.past_distributions.plus(last.distributions)
        view.windows_recomputed += max(0, last.window - ready.window)
    view.past_worked = worked(view)
    view.snapshots = {}
    view.ready, view.choice = ready, ready.choice
    view.config, view.revision = ready.config, ready.revision


def worked(view: JobView) -> dict[int, float]:
    """Seconds in which each rank waited for no other, since this daemon started."""
    present = {rank: snapshot.worked for rank, snapshot in view.snapshots.items()}
    return {
        rank: view.past_worked.get(rank, 0.0) + present.get(rank, 0.0)
        for rank in sorted({*view.past_worked, *present})
    }


def _follow(view: JobView, report: m.Applied) -> None:
    """Configuration as the loop has it: revisions are numbered there, not here."""
    view.config = rebased(view.config, {d.key: d.new for d in report.differences})
    view.revision = report.applied.revision
    if (
        report.choice is not None
        and view.choice is not None
        and report.choice.precision is not view.choice.precision
    ):
        chosen = report.choice.precision.value
        view.precision_changes[chosen] = view.precision_changes.get(chosen, 0) + 1
    view.choice = report.choice or view.choice
    _catch_up(view, report)


def _catch_up(view: JobView, report: m.Applied) -> None:
    """Whoever asks after an answer must not be told of a time before it: the next snapshot may be a while."""
    last, applied = view.snapshot, report.applied
    if last is not None and last.window <= applied.window and view.choice is not None:
        trial = None if _ends_trial(applied.action) else last.trial
        lr = last.lr if report.lr is None else report.lr
        view.snapshots[0] = msgspec.structs.replace(
            last,
            window=applied.window,
            revision=view.revision,
            precision=view.choice.precision,
            trial=trial,
            lr=lr,
        )


def _ends_trial(action: m.Action) -> bool:
    return isinstance(action, m.Confirm) or (isinstance(action, m.Configure) and action.reverts is not None)


def _sample(view: JobView, rank: int, snapshot: m.Snapshot, now: float) -> None:
    last = view.snapshots.get(rank)
    if last is None or last.window != snapshot.window:
        view.last_progress = now
    view.snapshots[rank] = snapshot
    if rank == 0:
        view.revision = snapshot.revision
        view.trace.add(now, snapshot, view.counts)
        view.lately.add(now, view.counts)


def _evaluate(view: JobView, evaluated: m.Evaluated) -> None:
    view.last_evaluated = evaluated
    loss = evaluated.figures.get("loss")
    if loss is not None and math.isfinite(loss):
        view.best_loss = loss if view.best_loss is None else min(loss, view.best_loss)


def _sum(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {key: a.get(key, 0.0) + b.get(key, 0.0) for key in (*a, *(key for key in b if key not in a))}
