"""How a job ends: what is said of a worker that is gone, and which code the daemon exits with."""

from __future__ import annotations

import signal
from typing import Any, Literal

import msgspec

from ampd.core import messages as m
from ampd.core import replies
from ampd.core.config import RestartSection
from ampd.core.lifecycle import JobState
from ampd.core.stimuli import Exited
from ampd.core.view import JobView
from ampd.errors import ExitCode

LONGEST_BACKOFF_SECONDS = 300.0
"""Doubling without end would soon be waiting for ever; what passes in five minutes has been waited out by then."""
_MOST_DOUBLINGS = 64  # far beyond it, and a float for certain
_SIGNALS = {number.value: number.name for number in signal.Signals}


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    """A stop that was asked for, and how it goes.

    `was_ready`: the worker had run windows that a checkpoint could save. `is_cut_short`: by a Ctrl-C, or by a
    second signal. `is_hurried`: the checkpoint is not waited for any more. `is_overdue`: its time was over.
    """

    save: bool
    was_ready: bool
    is_cut_short: bool = False
    is_hurried: bool = False
    is_overdue: bool = False


def reason_of(exited: Exited) -> str:
    """Why a worker is gone, in words."""
    if exited.reason:
        return exited.reason
    if exited.returncode < 0:
        return f"signal {_SIGNALS.get(-exited.returncode, -exited.returncode)}"
    return f"exit code {exited.returncode}"


def kind_of(exited: Exited) -> Literal["crashed", "killed"]:
    """The label of the restart counter: killed is SIGKILL, which is how the kernel ends a process out of memory."""
    return "killed" if exited.returncode == -signal.SIGKILL else "crashed"


def backoff_seconds(section: RestartSection, crashes: int) -> float:
    """How long to wait before the restart after so many crashes in a row."""
    doubled = section.backoff_seconds * 2.0 ** min(crashes - 1, _MOST_DOUBLINGS)
    return min(doubled, max(section.backoff_seconds, LONGEST_BACKOFF_SECONDS))


def most_restarts(view: JobView) -> int:
    """How often a worker is started again without a new checkpoint; a group that others have started, they restart."""
    return 0 if view.config.distributed.processes == "env" else view.config.restart.max_restarts


def gave_up(view: JobView, exited: Exited) -> m.Finished:
    """The result of a job whose worker crashed once too often."""
    crashes = most_restarts(view) + 1
    last = exited.last_lines[-1] if exited.last_lines else ""
    times = "once" if crashes == 1 else f"{crashes} times in a row without a new checkpoint"
    return m.Finished(
        result="failed",
        window=replies.window_of(view),
        message=f"the worker crashed {times}, the last time with {reason_of(exited)}{': ' + last if last else ''}",
        hint=f"see {view.directory}/worker.log; `ampd start` goes on from the last checkpoint",
        exit_code=ExitCode.FAILED,
    )


def ended_early(view: JobView, stopping: Stopping, exited: Exited) -> m.Finished:
    """The result of a job whose worker was told to stop and ended without saying how."""
    window = replies.window_of(view)
    if not (stopping.save and stopping.was_ready):
        return m.Finished(result="stopped", window=window, message="stopped without a new checkpoint")
    if stopping.is_hurried:
        return m.Finished(result="stopped", window=window, message="interrupted before it saved")
    budget = view.config.restart.save_budget_seconds
    late = f"did not save within restart.save_budget_seconds = {budget:g} and was killed"
    return m.Finished(
        result="failed",
        window=window,
        message=f"the stopping worker {late if stopping.is_overdue else f'ended with {reason_of(exited)} before it saved'}",
        hint=f"the checkpoint before it stands; see {view.directory}/worker.log",
        exit_code=ExitCode.FAILED,
    )


def vanished(view: JobView) -> m.Finished:
    """The result where an attached program ended without saying how."""
    return m.Finished(
        result="failed",
        window=replies.window_of(view),
        message="the program ended without saying how",
        exit_code=ExitCode.FAILED,
    )


def not_running(view: JobView) -> m.Finished:
    """The result of a job that was stopped while no worker ran."""
    return m.Finished(result="stopped", window=replies.window_of(view), message="stopped while no worker ran")


def way_to(state: JobState, final: JobState) -> tuple[JobState, ...]:
    """The moves from a state to a final one: a worker may end by itself where the table wants a stop first."""
    if final is JobState.STOPPED and state is not JobState.STOPPING:
        return (JobState.STOPPING, final)
    return (JobState.RUNNING, final) if (state, final) == (JobState.PAUSED, JobState.COMPLETED) else (final,)


def stopped(view: JobView) -> dict[str, Any]:
    """The result of a stop."""
    return {"state": view.state, "saved": is_saved(view)}


def is_held(view: JobView, *, was_ready: bool) -> bool:
    """Whether a job that is over is served on: one that ended by itself, where the job file says so.

    One that never began, for a reason in its configuration, is not: whoever starts it must see the error.
    """
    if view.config.job.on_finish != "hold" or view.state is JobState.STOPPED:
        return False
    return was_ready or view.result is None or view.result.exit_code != ExitCode.USAGE


def is_saved(view: JobView) -> bool:
    """Whether a checkpoint holds everything that was run."""
    ended = view.result.window if view.result is not None else -1
    window = max(ended, replies.window_of(view))
    saved = view.last_saved.window if view.last_saved is not None else -1
    resumed = view.ready.window if view.ready is not None and view.ready.resumed else -1
    return max(saved, resumed) >= window


def exit_code(view: JobView, stopping: Stopping | None) -> int:
    """What the daemon exits with in a final state."""
    if view.state is JobState.FAILED:
        return (view.result.exit_code if view.result is not None else 0) or ExitCode.FAILED
    if view.state is JobState.COMPLETED or stopping is None:
        return ExitCode.OK
    return ExitCode.INTERRUPTED if stopping.is_cut_short and not is_saved(view) else ExitCode.OK
