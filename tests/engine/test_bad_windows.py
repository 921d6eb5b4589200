"""What is bad even in float32: skipped, kept, held or the end, as the job file says; and limits of fallbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ampd.core import messages as m
from ampd.engine import checkpoint
from tests.engine import toy
from tests.engine.runs import Run

SHORT: dict[str, Any] = {"windows": 12}


def test_a_quarantined_window_is_kept_with_its_inputs(tmp_path: Path) -> None:
    """The window is not applied, counted apart, and its inputs can be read back."""
    run = bad_run(tmp_path, "quarantine", "nan-grad")

    run.finish()

    (kept,) = run.said(m.Quarantined)
    inputs = load_file(Path(kept.path) / "inputs.safetensors")
    expected = toy.window(0).micro_batches[1].tensors["x"]
    assert torch.equal(inputs["inputs/1/x"], expected)
    assert checkpoint.verify(Path(kept.path)).plain["precision"] == "float32"
    counts = run.said(m.Snapshot)[-1].job
    assert (counts.applied, counts.quarantined, counts.skipped) == (11, 1, {})


def test_a_bad_window_can_hold_the_job(tmp_path: Path) -> None:
    """on_bad_window = pause stops at the boundary until an operator says so."""
    run = bad_run(tmp_path, "pause", "nan-loss")
    run.orders.put(m.Resume(request_id="early"))

    stop_when_held(run)
    finished = run.finish()

    assert finished.result == "stopped"
    assert "window 0 is not finite" in run.said(m.Holding)[0].reason


def test_a_bad_window_can_end_the_job(tmp_path: Path) -> None:
    """on_bad_window = abort fails the run with the window and the cause."""
    finished = bad_run(tmp_path, "abort", "nan-loss").finish()

    assert finished.result == "failed"
    assert "window 0 is not finite even at float32 (cause: model)" in finished.message


def test_passing_the_limit_raises_the_dtype(tmp_path: Path) -> None:
    """One window more than max_fp32_fallbacks, and first attempts are wider, by the author `policy`."""
    amp = {"dtype": "bfloat16", "max_fp32_fallbacks": 2, "on_fallback_limit": "raise_dtype"}
    run = Run(tmp_path, job=SHORT, amp=amp, workload=OverflowsInLow())

    run.finish()

    (limit,) = run.said(m.LimitReached)
    (applied,) = run.said(m.Applied)
    assert (limit.fallbacks, limit.action) == (3, "raise_dtype")
    assert (applied.applied.author, applied.applied.window) == ("policy", 3)
    assert run.said(m.Snapshot)[-1].precision == "float32"


def test_the_limit_acts_once_an_epoch(tmp_path: Path) -> None:
    """A warning is one warning for each epoch, however many windows fall back."""
    amp = {"dtype": "bfloat16", "max_fp32_fallbacks": 2}
    run = Run(tmp_path, job={"windows": 20}, amp=amp, workload=OverflowsInLow())

    run.finish()

    assert [limit.epoch for limit in run.said(m.LimitReached)] == [0, 1, 2]


def test_a_scale_at_its_floor_is_told_once(tmp_path: Path) -> None:
    """Windows that stay bad with the scale at its floor are worth one event, not one each."""
    amp = {"dtype": "float16", "init_scale": 4.0, "min_scale": 2.0}
    run = Run(tmp_path, job=SHORT, amp=amp, workload=OverflowsInLow())

    run.finish()

    assert [stuck.scale for stuck in run.said(m.ScaleStuck)] == [2.0]


class OverflowsInLow(toy.Toy):
    """Finite in float32 alone."""

    def loss(self, micro_batch: Any) -> torch.Tensor:
        loss = super().loss(micro_batch)
        return loss + float("nan") if torch.is_autocast_enabled("cpu") else loss


def bad_run(directory: Path, policy: str, fault: m.Fault) -> Run:
    """A run whose first window is bad at every precision."""
    run = Run(directory, job=SHORT, amp={"dtype": "float16", "on_bad_window": policy})
    run.orders.put(m.Act(request_id="bad", action=m.Inject(fault=fault)))
    return run


def stop_when_held(run: Run) -> None:
    """Order a stop as soon as the run says that it holds."""
    say = run.reports.append

    def hear(report: m.Report) -> None:
        say(report)
        if isinstance(report, m.Holding):
            run.orders.put(m.Stop(save=False))

    run.loop._report = hear


def test_a_rollback_leaves_what_to_avoid_in_the_journal(tmp_path: Path) -> None:
    """The run ends without a result; the next worker goes back to the checkpoint and passes over the bad window."""
    first = Run(
        tmp_path,
        job=SHORT,
        checkpoint={"every_windows": 4},
        amp={"on_bad_window": "rollback"},
        workload=BadAt(6),
    )

    assert first.leave() is None
    (avoid,) = [a.applied for a in first.said(m.Applied)]
    second = Run(
        tmp_path, job=SHORT, checkpoint={"every_windows": 4}, amp={"on_bad_window": "rollback"},
        workload=BadAt(6), schedule=[avoid],
    )  # fmt: skip
    finished = second.finish()

    assert second.said(m.Ready)[0].window == 4
    assert finished.result == "completed"
    counts = second.said(m.Snapshot)[-1].job
    assert (counts.windows, counts.applied, counts.skipped) == (12, 11, {"model": 1})
    assert second.losses.count('"skipped":"model"') == 1


class BadAt(toy.Toy):
    """Not finite at one window, whatever the precision."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._bad = next(self.windows(0, number))[0].tensors["x"]

    def loss(self, micro_batch: Any) -> torch.Tensor:
        loss = super().loss(micro_batch)
        return loss * float("nan") if torch.equal(micro_batch.tensors["x"], self._bad) else loss


def test_no_checkpoint_is_written_past_the_window_to_go_back_over(tmp_path: Path) -> None:
    """Where a save is due right after the bad window, it would be of the other side."""
    options: dict[str, Any] = {
        "job": SHORT, "checkpoint": {"every_windows": 7}, "amp": {"on_bad_window": "rollback"}
    }  # fmt: skip
    run = Run(tmp_path, workload=BadAt(6), **options)

    assert run.leave() is None

    assert run.said(m.Saved) == []
