"""Milestones are where a window's number says so, in whatever order they are asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ampd.engine.milestones import Milestones
from tests.engine import toy

PERIODS = st.integers(1, 12)
WINDOWS = st.lists(st.integers(0, 60), min_size=1, max_size=20)


class Short(toy.Toy):
    """Epochs of seven windows."""

    windows_per_epoch = 7


@given(save=PERIODS, evaluate=st.integers(0, 12), windows=WINDOWS)
def test_a_milestone_is_a_multiple_of_a_period_or_the_end(
    save: int, evaluate: int, windows: list[int]
) -> None:
    """An epoch, a checkpoint, an evaluation or the end of the job, as plain division says, also after going back."""
    trainer = toy.trainer(
        Short(), job={"windows": 50}, checkpoint={"every_windows": save}, evaluate={"every_windows": evaluate}
    )
    milestones = Milestones(trainer)

    for window in windows:
        is_due = not window % save or not window % 7 or bool(evaluate and not window % evaluate)
        assert milestones.is_one(window) == (is_due or window >= trainer.total_windows)


def test_a_changed_period_holds_at_the_next_boundary() -> None:
    """What was worked out ahead is worked out again under the new configuration."""
    trainer = toy.trainer(job={"windows": 50}, checkpoint={"every_windows": 40})
    milestones = Milestones(trainer)
    assert not milestones.is_one(5)

    trainer.configure(toy.config(job={"windows": 50}, checkpoint={"every_windows": 6}))

    assert milestones.is_one(6)
