"""The table of states: every cell is either a move that the diagram shows, or refused."""

from __future__ import annotations

import itertools

import pytest

from ampd.core import lifecycle
from ampd.core.lifecycle import TRANSITIONS, JobState, move

_DRAWN = {
    "starting": "running paused recovering stopping completed failed",
    "running": "paused recovering stopping completed failed",
    "paused": "running recovering stopping failed",
    "recovering": "starting stopping failed",
    "stopping": "stopped completed failed",
    "stopped": "",
    "completed": "",
    "failed": "",
}
_CELLS = list(itertools.product(JobState, JobState))


@pytest.mark.parametrize(("start", "finish"), _CELLS, ids=[f"{a}-{b}" for a, b in _CELLS])
def test_a_move_is_allowed_exactly_where_it_is_drawn(start: JobState, finish: JobState) -> None:
    """Every cell of the table: the drawn moves succeed, the others are bugs."""
    if finish in _DRAWN[start].split():
        assert move(start, finish) is finish
    else:
        with pytest.raises(AssertionError, match=f"from {start} to {finish}"):
            move(start, finish)


def test_final_states_are_those_without_a_way_out() -> None:
    """Stopped, completed and failed end a job; nothing else does."""
    assert {state for state in JobState if state.is_final} == {
        JobState.STOPPED,
        JobState.COMPLETED,
        JobState.FAILED,
    }


@pytest.mark.parametrize("state", [s for s in JobState if not s.is_final])
def test_every_job_can_end(state: JobState) -> None:
    """From any state that is not final, some way leads to each of stopped and failed."""
    reached, fresh = {state}, {state}
    while fresh:
        fresh = {after for before in fresh for after in TRANSITIONS[before]} - reached
        reached |= fresh
    assert {JobState.STOPPED, JobState.FAILED} <= reached


def test_the_diagram_names_every_state() -> None:
    """A state that the docstring does not show would be unknown to its readers."""
    assert all(str(state) in str(lifecycle.__doc__) for state in JobState)
