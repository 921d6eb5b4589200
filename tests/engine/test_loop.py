"""The loop: what a run does between its first and its last window, and that stopping leaves no trace in it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ampd.core import messages as m
from ampd.core.trial import Terms
from ampd.engine import checkpoint, snapshot
from ampd.engine.assembly import Parts
from ampd.engine.mending import MustLeave
from ampd.engine.window import MicroBatch
from ampd.engine.writer import CHECKPOINTS
from tests.engine import toy
from tests.engine.runs import Run, act_at

HOUR = {"windows": 40}


def test_a_run_completes_with_a_row_for_each_window(tmp_path: Path) -> None:
    """A job ends after its windows, with a checkpoint and the loss log complete."""
    run = Run(tmp_path, job=HOUR)

    finished = run.finish()

    assert (finished.result, finished.window) == ("completed", 40)
    assert len(run.losses.splitlines()) == 40
    assert run.said(m.Saved)[-1].window == 40
    assert run.said(m.Snapshot)[-1].job.applied == 40


def test_a_stopped_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Stopping in the middle of an epoch and starting again gives the same losses and the same checkpoint."""
    whole = Run(tmp_path / "whole", job=HOUR, checkpoint={"every_windows": 10})
    whole.finish()

    first = Run(tmp_path / "parts", job=HOUR, checkpoint={"every_windows": 10})
    stop_at(first, 13)
    assert first.finish().result == "stopped"
    second = Run(tmp_path / "parts", job=HOUR, checkpoint={"every_windows": 10})
    assert second.said(m.Ready)[0].window == 13
    second.finish()

    assert second.losses == whole.losses
    assert saved_files(second) == saved_files(whole)


def test_a_killed_run_repeats_from_its_checkpoint(tmp_path: Path) -> None:
    """Rows written after the last checkpoint are cut back, so a crash leaves neither holes nor doubles."""
    whole = Run(tmp_path / "whole", job=HOUR, checkpoint={"every_windows": 20})
    whole.finish()

    crashed = Run(tmp_path / "crashed", job=HOUR, checkpoint={"every_windows": 20})
    stop_at(crashed, 27, save=False)
    crashed.finish()
    again = Run(tmp_path / "crashed", job=HOUR, checkpoint={"every_windows": 20})
    assert again.said(m.Ready)[0].window == 20
    again.finish()

    assert again.losses == whole.losses


def test_the_journal_repeats_changes_at_their_windows(tmp_path: Path) -> None:
    """A change and an injected overflow after the last checkpoint come back at exactly the windows they had."""
    amp = {"init_scale": 128.0}
    schedule = [
        act_at(12, m.Configure(changes={"amp.dtype": "float16"}), 1),
        act_at(15, m.Inject(fault="overflow", windows=2), 2),
    ]
    whole = Run(tmp_path / "whole", job=HOUR, amp=amp, schedule=schedule)
    whole.finish()
    crashed = Run(
        tmp_path / "crashed", job=HOUR, amp=amp, schedule=schedule, checkpoint={"every_windows": 14}
    )
    stop_at(crashed, 20, save=False)
    crashed.finish()
    again = Run(tmp_path / "crashed", job=HOUR, amp=amp, schedule=schedule, checkpoint={"every_windows": 14})
    assert again.said(m.Ready)[0].revision == 2
    again.finish()

    assert again.losses == whole.losses
    assert [a.applied.window for a in again.said(m.Applied)] == [15]
    assert again.said(m.Snapshot)[-1].job.fp32_fallbacks == {"forward": 2}


def test_new_actions_wait_for_the_repeated_history(tmp_path: Path) -> None:
    """An action ordered while history is being repeated comes after it, with the next number."""
    schedule = [act_at(5, m.Configure(changes={"optim.lr": 0.02}))]
    run = Run(tmp_path, job=HOUR, schedule=schedule)
    run.orders.put(m.Act(request_id="new", action=m.Configure(changes={"optim.lr": 0.03})))

    run.finish()

    assert [(a.applied.seq, a.applied.window, a.applied.revision) for a in run.said(m.Applied)] == [
        (1, 5, 2),
        (2, 5, 3),
    ]


def test_pausing_holds_and_resuming_changes_nothing(tmp_path: Path) -> None:
    """A paused run takes changes and checkpoints, and goes on with the same losses."""
    whole = Run(tmp_path / "whole", job=HOUR)
    whole.finish()
    paused = Run(tmp_path / "paused", job=HOUR)
    for order in (m.Pause(request_id="p"), m.Checkpoint(request_id="c"), m.Resume(request_id="r")):
        paused.orders.put(order)

    paused.finish()

    assert [h.window for h in paused.said(m.Holding)] == [0]
    assert [g.request_id for g in paused.said(m.Going)] == ["r"]
    assert "c" in [s.request_id for s in paused.said(m.Saved)]
    assert paused.losses == whole.losses


def test_a_stale_base_is_refused(tmp_path: Path) -> None:
    """A change made for an older revision changes nothing."""
    run = Run(tmp_path, job={"windows": 2})
    run.orders.put(m.Act(request_id="stale", action=m.Configure(changes={"optim.lr": 0.5}, base=7)))

    run.finish()

    (refused,) = run.said(m.Refused)
    assert (refused.request_id, refused.code) == ("stale", "CONFLICT")
    assert run.said(m.Snapshot)[-1].revision == 1


def test_evaluation_leaves_no_trace(tmp_path: Path) -> None:
    """Evaluating every few windows changes no loss of the run."""
    plain = Run(tmp_path / "plain", job=HOUR)
    plain.finish()
    watched = Run(tmp_path / "watched", job=HOUR, evaluate={"every_windows": 5})
    watched.finish()

    assert watched.losses == plain.losses
    assert [e.window for e in watched.said(m.Evaluated)] == [5, 10, 15, 20, 25, 30, 35, 40]


def test_every_window_is_timed_and_its_norm_counted(tmp_path: Path) -> None:
    """The last snapshot has them all; what telemetry took of the loop is an activity of its own."""
    run = Run(tmp_path, job=HOUR)

    run.finish()

    last = run.said(m.Snapshot)[-1]
    assert last.distributions.window_seconds.cumulative[-1] == 40
    assert last.distributions.grad_norm.cumulative[-1] == 40
    assert last.distributions.window_seconds.total <= last.seconds["train"] + last.seconds["data"]
    assert last.seconds["telemetry"] > 0


SHOWN: list[tuple[str, list[m.Action], list[int]]] = [
    ("plain changes", [m.Configure(changes={"optim.lr": 0.1 / n}) for n in range(1, 6)], []),
    ("a reset", [m.Reset(what="stats")], [1]),
    ("another precision", [m.Configure(changes={"amp.dtype": "bfloat16"})], [1]),
    ("a trial", [m.Configure(changes={"optim.lr": 0.1}, trial=Terms(windows=2, guards=()))], [1, 3]),
]
"""Actions before window 1, and which windows a snapshot is sent before on their account."""


@pytest.mark.parametrize(("actions", "shown"), [row[1:] for row in SHOWN], ids=[row[0] for row in SHOWN])
def test_a_snapshot_follows_what_a_report_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, actions: list[m.Action], shown: list[int]
) -> None:
    """After an answer its effect is seen; a plain change is told whole by its report, and is shown with the next figures."""
    monkeypatch.setattr(snapshot, "_PUSH_SECONDS", math.inf)
    schedule = [act_at(1, action, seq) for seq, action in enumerate(actions, start=1)]
    run = Run(tmp_path, job={"windows": 5}, amp={"dtype": "float32"}, schedule=schedule)

    run.finish()

    assert len(run.said(m.Applied)) >= len(actions)
    assert [report.window for report in run.said(m.Snapshot)] == [*shown, 5]


@pytest.mark.parametrize(("first_bad", "in_a_row"), [(6, 3), (2, 0)])
def test_windows_skipped_in_a_row_are_told(tmp_path: Path, first_bad: int, in_a_row: int) -> None:
    """Counted from the last window that was applied, so they are gone with the next one."""
    schedule = [act_at(first_bad, m.Inject(fault="nan-loss", windows=3))]
    run = Run(tmp_path, job={"windows": 9}, schedule=schedule)

    run.finish()

    assert run.said(m.Snapshot)[-1].skipped_in_a_row == in_a_row
    assert sum(run.said(m.Snapshot)[-1].job.skipped.values()) == 3


def test_an_injected_constant_is_met_and_mended(tmp_path: Path) -> None:
    """It widens the loss function in the window that it hits, and every window is applied."""
    schedule = [act_at(3, m.Inject(fault="constant"))]
    run = Run(tmp_path, job={"windows": 6}, amp={"dtype": "float16", "init_scale": 128.0}, schedule=schedule)

    run.finish()

    assert [report.window for report in run.said(m.Widened)] == [3]
    assert run.said(m.Snapshot)[-1].job.applied == 6


def stop_at(run: Run, window: int, *, save: bool = True) -> None:
    """Order a stop that arrives while `window - 1` is running."""
    loss: Callable[[MicroBatch], Tensor] = run.workload.loss

    def stopping(micro_batch: MicroBatch) -> Tensor:
        if run.loop.window == window - 1 and run.orders.empty():
            run.orders.put(m.Stop(save=save))
        return loss(micro_batch)

    run.workload.loss = stopping


def saved_files(run: Run) -> dict[str, object]:
    """The checksums of the last checkpoint, and its plain state."""
    from ampd.engine import checkpoint

    manifest = checkpoint.verify(checkpoint.listed(run.directory / "checkpoints")[-1])
    return {**{k: v.sha256 for k, v in manifest.files.items()}, "plain": manifest.plain}


def test_a_model_with_a_mask_can_be_saved(tmp_path: Path) -> None:
    """A buffer of -inf is no reason to refuse a checkpoint."""
    workload = toy.Toy()
    workload.model.register_buffer("mask", torch.full((2, 2), float("-inf")))
    run = Run(tmp_path, job={"windows": 2}, workload=workload)

    run.finish()

    assert (run.said(m.SaveFailed), len(run.said(m.Saved))) == ([], 1)


def test_a_checkpoint_knows_what_its_evaluation_said(tmp_path: Path) -> None:
    """Where a state was evaluated, its checkpoint keeps the loss, by which the best are chosen; elsewhere there is none."""
    run = Run(tmp_path, job={"windows": 6}, checkpoint={"every_windows": 3}, evaluate={"every_windows": 2})
    run.finish()

    kept = {window: manifest.plain.get("evaluated/loss") for window, manifest in manifests(run).items()}

    assert kept == {3: None, 6: run.said(m.Evaluated)[-1].figures["loss"]}


def manifests(run: Run) -> dict[int, checkpoint.Manifest]:
    """Of all checkpoints that there are, by window."""
    found = (checkpoint.verify(path) for path in checkpoint.listed(run.directory / CHECKPOINTS))
    return {manifest.window: manifest for manifest in found}


class Short(toy.Toy):
    """A rank of several that runs out of memory where only beginning again helps."""

    def __init__(self, window: int) -> None:
        super().__init__(micro_batches=1)
        self.left = window
        self.parts: Parts

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        self.left -= 1
        if self.left < 0:
            self.parts.shortages.count += 1
            raise MustLeave("no memory", parts=2)
        return super().loss(micro_batch)


def test_why_a_rank_leaves_is_counted_before_it_does(tmp_path: Path) -> None:
    """The count is the process's own, and goes with it."""
    short = Short(window=3)
    run = Run(tmp_path, workload=short, job=HOUR, amp={"dtype": "float32", "track_amp_stats": False})
    short.parts = run.parts

    with pytest.raises(MustLeave):
        run.leave()

    last = run.reports[-1]
    assert isinstance(last, m.Snapshot)
    assert (last.usage.shortages, last.window) == (1, 3)


def test_the_mean_of_a_period_is_that_of_all_its_windows(tmp_path: Path) -> None:
    """What was added between two snapshots, over how many there were; a window that is not finite is in neither."""
    injected = [act_at(5, m.Inject(fault="nan-loss", windows=1))]
    run = Run(tmp_path, job=HOUR, amp={"dtype": "float32"}, schedule=injected)

    run.finish()

    losses = [json.loads(row)["loss"] for row in run.losses.splitlines()]
    finite = [loss for loss in losses if isinstance(loss, float)]
    told = run.said(m.Snapshot)[-1].distributions.losses
    assert (len(finite), told.windows, told.negative) == (39, 39, 0.0)
    assert told.positive == pytest.approx(sum(finite))
