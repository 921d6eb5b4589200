"""How a job ends: the words for it and the exit code, in every combination that matters."""

from __future__ import annotations

import itertools

import pytest

from ampd.core import messages as m
from ampd.core import outcome
from ampd.core.lifecycle import TRANSITIONS, JobState
from ampd.core.outcome import Stopping
from ampd.core.stimuli import Exited
from tests.core.bench import job_view, snapshot

FINAL = [state for state in JobState if state.is_final]


@pytest.mark.parametrize(
    ("state", "stopping", "is_saved", "code"),
    [
        (JobState.COMPLETED, None, False, 0),
        (JobState.COMPLETED, Stopping(save=True, was_ready=True, is_cut_short=True), False, 0),
        (JobState.STOPPED, None, False, 0),
        (JobState.STOPPED, Stopping(save=True, was_ready=True), True, 0),
        (JobState.STOPPED, Stopping(save=False, was_ready=True), False, 0),
        (JobState.STOPPED, Stopping(save=True, was_ready=True, is_cut_short=True), True, 0),
        (JobState.STOPPED, Stopping(save=True, was_ready=True, is_cut_short=True), False, 130),
        (JobState.FAILED, None, True, 1),
    ],
)
def test_the_exit_code(state: JobState, stopping: Stopping | None, is_saved: bool, code: int) -> None:
    """0 unless something failed or was lost to an interrupt."""
    view = job_view()
    view.state = state
    view.snapshots[0] = snapshot(9)
    if is_saved:
        view.last_saved = m.Saved(window=9, path="p", bytes=1, seconds=1, stall_seconds=0)

    assert outcome.exit_code(view, stopping) == code


@pytest.mark.parametrize(
    ("state", "final"), [*itertools.product([s for s in JobState if not s.is_final], FINAL)]
)
def test_every_way_to_an_end_is_drawn(state: JobState, final: JobState) -> None:
    """A worker's result reaches its final state by moves of the table, from wherever a worker may speak."""
    if state is JobState.RECOVERING and final is JobState.COMPLETED:
        return  # no worker, so nobody could say so
    for after in outcome.way_to(state, final):
        assert after in TRANSITIONS[state]
        state = after

    assert state is final


def test_an_unsaved_window_is_not_saved() -> None:
    """Saved means everything that was run, not something."""
    view = job_view()
    view.last_saved = m.Saved(window=8, path="p", bytes=1, seconds=1, stall_seconds=0)
    view.snapshots[0] = snapshot(9)
    assert not outcome.is_saved(view)

    view.snapshots[0] = snapshot(8)
    assert outcome.is_saved(view)


def test_giving_up_names_the_last_reason_and_line() -> None:
    """One message says what happened and where to look."""
    ending = outcome.gave_up(
        job_view(), Exited(now=1.0, returncode=-9, last_lines=("a", "CUDA out of memory"))
    )

    assert ending.message.endswith("the last time with signal SIGKILL: CUDA out of memory")
    assert ending.hint.startswith("see runs/toy/worker.log")
