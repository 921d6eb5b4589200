"""Where the time within a window goes: every moment of a sampled window belongs to one activity, and sampling changes nothing."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch

from ampd.core import messages as m
from ampd.core.activity import Activity
from ampd.engine.breakdown import Breakdown, HostClock, clock_of
from ampd.engine.trainer import Trainer
from tests.engine import toy
from tests.engine.runs import Run

A = Activity
ADAPTIVE: dict[str, Any] = {"dtype": "float16", "replay": "adaptive", "risky_windows": 0, "init_scale": 128.0}
MODES: dict[str, dict[str, Any]] = {
    "float32": {"amp": {"dtype": "float32"}},
    "sync": {"amp": {"dtype": "float16", "replay": "sync", "init_scale": 128.0}, "clip": {"max_norm": 0.5}},
    "adaptive": {"amp": ADAPTIVE, "optim": {"fused": True}},
}


class Ticks:
    """A clock on which every mark is one second after the one before; what is marked is past where `reached` says so."""

    def __init__(self) -> None:
        self.ticks = 0
        self.reached = True

    def mark(self) -> int:
        """The next second."""
        self.ticks += 1
        return self.ticks

    def is_past(self, mark: int) -> bool:
        """Whether the device has come by."""
        return self.reached

    def between(self, begin: int, end: int) -> float:
        """Whole seconds."""
        return float(end - begin)


class Noted(Breakdown):
    """Keeps the activities that were entered."""

    def __init__(self) -> None:
        super().__init__(Ticks(), every_seconds=0.0)
        self.entered: list[Activity] = []

    def enter(self, activity: Activity) -> None:
        self.entered.append(activity)
        super().enter(activity)


def looked_into(subject: Trainer, numbers: range, fault: m.Fault | None = None) -> None:
    """Train windows of which each is sampled; the last of them with a fault."""
    breakdown = subject.parts.breakdown
    for number in numbers:
        if fault is not None and number == numbers[-1]:
            subject.parts.injector.arm(fault, 1)
        breakdown.begin()
        breakdown.fetched()
        subject.step(toy.window(number, subject.parts.workload))
        breakdown.end()


def ticking(**sections: dict[str, Any]) -> tuple[Trainer, Ticks]:
    """A toy trainer that samples every window, by ticks."""
    subject, clock = toy.trainer(**sections), Ticks()
    subject.parts.breakdown.clock, subject.parts.breakdown.every_seconds = clock, 0.0
    return subject, clock


def entered(monkeypatch: pytest.MonkeyPatch, fault: m.Fault | None = None) -> list[Activity]:
    """The activities of one float16 window of two micro-batches, in order."""
    noted = Noted()
    monkeypatch.setattr("ampd.engine.assembly.Breakdown", lambda _clock, _sampled: noted)
    subject = toy.trainer(toy.Toy(micro_batches=2), amp={"dtype": "float16", "init_scale": 128.0})
    if fault is not None:
        subject.parts.injector.arm(fault, 1)
    noted.begin()
    noted.fetched()
    subject.step(toy.window(0, subject.parts.workload))
    noted.end()
    return [activity for activity, _ in groupby(noted.entered)]


PASS = [A.DATA, A.FORWARD, A.BACKWARD]


def test_a_window_is_marked_in_the_order_of_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data first; the passes of each micro-batch; then the optimizer's step, with judging around it."""
    assert entered(monkeypatch) == [A.DATA, A.OTHER, *PASS, *PASS, A.OTHER, A.OPTIMIZER, A.OTHER]


def test_a_replay_counts_as_the_attempt_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its passes are forward and backward too, and the optimizer steps once."""
    passes = [*PASS, *PASS, A.OTHER]

    assert entered(monkeypatch, "overflow") == [A.DATA, A.OTHER, *passes, *passes, A.OPTIMIZER, A.OTHER]


@pytest.mark.parametrize("fault", [None, "overflow", "nan-loss"])
@pytest.mark.parametrize("mode", MODES)
def test_the_activities_are_all_of_the_sampled_time(mode: str, fault: m.Fault | None) -> None:
    """With accumulation, replays, skips and windows that are judged late: no moment is lost, none counted twice."""
    subject, clock = ticking(**MODES[mode])

    looked_into(subject, range(5), fault)

    sampled = subject.parts.breakdown.sampled
    assert sampled.windows == 5
    assert sum(sampled.seconds.values()) == clock.ticks - 5  # between windows is no window's


@pytest.mark.parametrize("mode", MODES)
def test_sampling_changes_no_bit(mode: str) -> None:
    """A trainer whose every window is looked into ends where one ends that is never looked into."""
    sampled, plain = toy.trainer(**MODES[mode]), toy.trainer(**MODES[mode])
    sampled.parts.breakdown.every_seconds = 0.0
    torch.manual_seed(7)
    looked_into(sampled, range(6), "overflow")
    sampled.drain()
    torch.manual_seed(7)
    toy.run(plain, range(6), {5: "overflow"})

    assert sampled.parts.breakdown.sampled.windows == 6
    assert toy.state_bytes(sampled) == toy.state_bytes(plain)


def test_a_window_that_is_not_due_makes_no_mark() -> None:
    """Events for every micro-batch of every window would be felt."""
    subject, clock = ticking()
    subject.parts.breakdown.every_seconds = 3600.0

    looked_into(subject, range(1))
    made = clock.ticks
    looked_into(subject, range(1, 4))

    assert (clock.ticks, subject.parts.breakdown.sampled.windows) == (made, 1)


def test_a_window_that_raised_is_no_sample() -> None:
    """Half a window would make all others look faster than they are."""
    clock = Ticks()
    breakdown = Breakdown(clock, every_seconds=0.0)
    breakdown.begin()
    breakdown.enter(A.FORWARD)

    breakdown.begin()
    breakdown.fetched()
    breakdown.end()

    assert breakdown.sampled.windows == 1
    assert {name for name, seconds in breakdown.sampled.seconds.items() if seconds == 1.0} == {
        "data",
        "other",
    }
    assert sum(breakdown.sampled.seconds.values()) == 2.0


def test_nobody_waits_for_the_device() -> None:
    """A sample that the device has not come to the end of keeps others from being taken, and is added up when it has."""
    clock = Ticks()
    breakdown = Breakdown(clock, every_seconds=0.0)
    clock.reached = False
    for _ in range(3):
        breakdown.begin()
        breakdown.end()
    before, made = breakdown.sampled.windows, clock.ticks

    clock.reached = True
    breakdown.begin()

    assert (before, made) == (0, 2)
    assert (breakdown.sampled.windows, clock.ticks) == (1, 3)


def test_the_clock_is_that_of_the_device() -> None:
    """On the CPU the process's own."""
    assert isinstance(clock_of(toy.CPU), HostClock)


def test_a_run_tells_what_its_windows_went_to(tmp_path: Path) -> None:
    """All but the first, which builds kernels; never more than the loop has spent on training and data."""
    run = Run(tmp_path, job={"windows": 9}, amp={"dtype": "float32"})
    run.parts.breakdown.every_seconds = 0.0

    run.finish()

    last = run.said(m.Snapshot)[-1]
    sampled = last.distributions.sampled
    assert sampled.windows == 8
    assert 0.0 < sum(sampled.seconds.values()) <= last.seconds["train"] + last.seconds["data"]
    assert min(sampled.seconds[activity] for activity in A) > 0.0
