"""What the loop tells: trouble at once and in order, the rest with the next snapshot, and nothing twice."""

from __future__ import annotations

from pathlib import Path

from ampd.core import messages as m
from tests.engine.runs import Run


def test_trouble_between_plain_windows_is_told_before_the_next_window(tmp_path: Path) -> None:
    """A skip is an event of its own window, not of the moment at which a page is due."""
    told: list[int] = []
    run = Run(tmp_path, job={"windows": 40}, inject={"allowed": True}, amp={"dtype": "float32"})
    armed = m.Act(request_id="1", action=m.Inject(fault="nan-grad", windows=1))
    run.on_report(m.Snapshot, lambda: run.orders.put(armed))  # the next one is a while away
    run.on_report(m.Skipped, lambda: told.append(run.loop.window))
    run.finish()

    assert told == [run.said(m.Skipped)[0].window + 1]


def test_every_window_is_counted_once_however_few_snapshots_there_are(tmp_path: Path) -> None:
    """What is put aside until a snapshot is due is in the last one, and in the log."""
    run = Run(tmp_path, job={"windows": 40})
    run.finish()

    last = run.said(m.Snapshot)[-1]
    assert sum(last.distributions.grad_norm.counts) == 40
    assert len(run.losses.splitlines()) == 40
    assert last.loss is not None
