"""The adaptive mode: no host read in a good window, and still every window is applied exactly once."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ampd.core import messages as m
from tests.engine import toy
from tests.engine.runs import Run

DEFERRED: dict[str, Any] = {"dtype": "float16", "replay": "adaptive", "risky_windows": 0, "init_scale": 128.0}
SYNC: dict[str, Any] = {**DEFERRED, "replay": "sync"}


@settings(max_examples=25, deadline=None, print_blob=True)
@given(bad=st.sets(st.integers(0, 15)), clip=st.sampled_from([None, 0.5]))
def test_every_window_is_applied_exactly_once(bad: set[int], clip: float | None) -> None:
    """Whatever windows overflow (consecutive, first, last), each is recorded and applied once, and all is finite."""
    subject = toy.trainer(amp=DEFERRED, clip={"max_norm": clip})

    records = toy.run(subject, range(16), dict.fromkeys(bad, "overflow"))

    assert [r.window for r in records] == list(range(16))
    assert [r.window for r in records if r.precision == "float32"] == sorted(bad)
    assert subject.ledger.job.applied == 16
    assert optimizer_steps(subject) == 16
    assert all(torch.isfinite(p).all() for p in subject.parts.parameters)


def test_without_faults_adaptive_equals_sync() -> None:
    """Deferring the verdict changes nothing where every verdict is good."""
    deferred = toy.trainer(amp=DEFERRED, clip={"max_norm": 0.5}, optim={"schedule": "constant"})
    late = toy.run(deferred, range(8))
    sync = toy.trainer(amp=SYNC, clip={"max_norm": 0.5}, optim={"schedule": "constant"})
    early = toy.run(sync, range(8))

    assert late == early
    assert toy.state_bytes(deferred) == toy.state_bytes(sync)


def test_a_late_replay_follows_its_successor() -> None:
    """A bad window is applied after the next one, exactly as if the two had come in that order, and is clipped too."""
    options: dict[str, Any] = {"clip": {"max_norm": 0.5}, "optim": {"schedule": "constant"}}
    late = toy.trainer(toy.Toy(dropout=0.0), amp=DEFERRED, **options)
    records = toy.run(late, range(3), {1: "overflow"})
    swapped = toy.trainer(toy.Toy(dropout=0.0), amp=SYNC, **options)
    faults: dict[int, m.Fault] = {1: "overflow"}
    for number in (0, 2, 1):
        toy.run(swapped, range(number, number + 1), faults)

    assert records[1].clipped
    ours, theirs = toy.state_bytes(late), toy.state_bytes(swapped)
    assert [n for n in ours if ours[n] != theirs[n]] == []


def test_a_bad_window_leaves_no_trace_until_it_is_replayed() -> None:
    """What is bad at every precision is gated on the device: weights, buffers and optimizer state stay as they were."""
    subject = toy.trainer(amp=DEFERRED)
    toy.run(subject, range(2))
    before = toy.state_bytes(subject)

    (record,) = toy.run(subject, range(2, 3), {2: "nan-loss"})

    assert record.skipped == "model"
    assert toy.state_bytes(subject) == before


def test_the_rate_does_not_advance_over_a_skipped_window() -> None:
    """The learning rate is a function of applied updates, also where the host learns late that one was not."""
    subject = toy.trainer(amp={**DEFERRED, "dtype": "float32"}, optim={"warmup_windows": 10})

    records = toy.run(subject, range(5), {1: "nan-grad"})

    applied = [r.lr for r in records if r.skipped is None]
    assert applied == pytest.approx([0.001, 0.002, 0.003, 0.004])


def test_trouble_makes_the_next_windows_risky() -> None:
    """After an overflow windows are judged at once for a while; calm ones are deferred again."""
    subject = toy.trainer(amp={**DEFERRED, "risky_windows": 2})

    settled = [len(subject.step(toy.window(n))) for n in range(5)]
    subject.parts.injector.arm("overflow", 1)
    settled += [len(subject.step(toy.window(n))) for n in range(5, 12)]

    # Two risky, one deferred, then a lag of one; the overflow of 5 settles together with 6, then 7 is risky too.
    assert settled == [1, 1, 0, 1, 1, 1, 2, 1, 0, 1, 1, 1]


def optimizer_steps(subject: Any) -> float:
    """How many updates the optimizer itself counted; all of its parameters agree."""
    (steps,) = {float(entry["step"]) for entry in subject.parts.optimizer.state.values()}
    return steps


class Late(queue.SimpleQueue[m.Order]):
    """Orders of which one arrives right after a boundary has looked for the `looks`-th time."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    def empty(self) -> bool:
        """What was true when it was asked."""
        was_empty = super().empty()
        self._looks -= 1
        if self._looks == 0:
            self.put(m.Act(request_id="late", action=m.Configure(changes={"optim.lr": 0.02})))
        return was_empty


@pytest.mark.parametrize("looks", range(3, 9))
def test_an_order_that_comes_while_a_boundary_is_crossed_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """Changes need every window settled, and this boundary has settled none: the next one applies it."""
    monkeypatch.setattr(toy, "orders", lambda: Late(looks))
    run = Run(tmp_path, amp=DEFERRED, job={"windows": 20})
    run.finish()

    assert [report.applied.request_id for report in run.said(m.Applied)] == ["late"]
