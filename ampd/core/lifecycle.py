"""The states of a job and the only moves between them.

    starting --> running <--> paused
       ^  |        |            |
       |  +--------+-----+------+--> stopping --> stopped
       |           |     |
    recovering <---+     +--> completed            (any state that is not final may become failed)

`completed`, `stopped` and `failed` are final: a held daemon keeps serving in `completed`.
"""

from __future__ import annotations

import enum


class JobState(enum.StrEnum):
    """Where a job is; the value is what `ampctl status` prints and the label `state` of a metric."""

    STARTING = "starting"  # the worker builds the model, loads state, warms up
    RUNNING = "running"
    PAUSED = "paused"  # holds at a window boundary, answers commands
    RECOVERING = "recovering"  # the worker is gone and will be started again
    STOPPING = "stopping"  # a last checkpoint is being written
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """No move leads out of here."""
        return not TRANSITIONS[self]

    @property
    def has_worker(self) -> bool:
        """A worker takes commands in this state."""
        return self in (JobState.RUNNING, JobState.PAUSED)


_S = JobState
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.STARTING: frozenset({_S.RUNNING, _S.PAUSED, _S.RECOVERING, _S.STOPPING, _S.COMPLETED, _S.FAILED}),
    _S.RUNNING: frozenset({_S.PAUSED, _S.RECOVERING, _S.STOPPING, _S.COMPLETED, _S.FAILED}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.RECOVERING, _S.STOPPING, _S.FAILED}),
    _S.RECOVERING: frozenset({_S.STARTING, _S.STOPPING, _S.FAILED}),
    _S.STOPPING: frozenset({_S.STOPPED, _S.COMPLETED, _S.FAILED}),
    _S.STOPPED: frozenset(),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
}


def move(start: JobState, finish: JobState) -> JobState:
    """`finish`, where the table allows the move; an AssertionError is a bug of ours."""
    assert finish in TRANSITIONS[start], f"no move from {start} to {finish}"
    return finish
