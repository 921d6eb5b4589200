"""What the loop declares, and when: every phase before it begins, and a window before its data is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from ampd.core import messages as m
from ampd.core.phase import Phase
from ampd.sdk import MicroBatch
from tests.engine import toy
from tests.engine.runs import Run, act_at

C, W, S, E = Phase.COMPILE, Phase.WINDOW, Phase.CHECKPOINT, Phase.EVALUATION


def _phases(run: Run) -> list[Phase]:
    return [phase for phase, _ in groupby(run.phases)]


def test_each_window_is_a_beat(tmp_path: Path) -> None:
    """The first may take long, since it builds kernels; the last checkpoint is declared too."""
    run = Run(tmp_path, job={"windows": 5})

    run.finish()

    assert run.phases[:5] == [C, W, W, W, W]
    assert set(run.phases[5:]) == {S}


def test_a_checkpoint_and_an_evaluation_are_declared(tmp_path: Path) -> None:
    """Between two windows, and the next window is declared again."""
    run = Run(
        tmp_path, job={"windows": 6}, checkpoint={"every_windows": 4}, evaluate={"every_windows": 2}
    )  # fmt: skip

    run.finish()

    assert _phases(run) == [C, W, E, W, E, S, W, E, S]


def test_a_change_makes_the_next_window_a_first_one(tmp_path: Path) -> None:
    """Another precision builds and tunes other kernels."""
    change = act_at(3, m.Configure(changes={"amp.dtype": "bfloat16"}))
    run = Run(tmp_path, schedule=[change], job={"windows": 6}, amp={"dtype": "float32"})

    run.finish()

    assert run.phases[:6] == [C, W, W, C, W, W]


def test_a_pause_goes_on_beating(tmp_path: Path) -> None:
    """A paused worker that looks for orders does not hang."""
    run = Run(tmp_path, job={"windows": 3})
    run.orders.put(m.Pause(request_id="pause-1"))
    for order in (m.Checkpoint(request_id="save-1"), m.Resume(request_id="resume-1")):
        run.orders.put(order)

    run.finish()

    assert run.phases[0] is Phase.PAUSED
    assert C in run.phases


def test_data_belongs_to_the_window(tmp_path: Path) -> None:
    """A loader that stalls is a window that does not end."""

    class Watching(toy.Toy):
        phases: list[Phase] = []
        seen: list[Phase] = []

        def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
            for window in super().windows(epoch, start):
                self.seen += self.phases[-1:]
                yield window

    workload = Watching()
    run = Run(tmp_path, workload=workload, job={"windows": 3})
    workload.phases = run.phases

    run.finish()

    assert workload.seen == [C, W, W]
