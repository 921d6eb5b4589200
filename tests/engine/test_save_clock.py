"""A save that does not end: told once, met like a disk that fails, and good after all where the disk comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ampd.core import messages as m
from ampd.core.config import WatchdogSection
from ampd.core.phase import Phase
from ampd.core.trouble import Trouble
from ampd.engine.retention import Keep
from ampd.engine.save_clock import SaveClock
from ampd.engine.writer import SaveTask
from tests.engine.disks import SilentDisk, silent_disk
from tests.engine.runs import Run
from tests.engine.test_writer import Desk, until

IMPATIENT = {"least_seconds": 0.05, "checkpoint_seconds": 0.05}
FEW = {"every_windows": 5}


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentDisk]:
    """A disk that will not answer until it is told to."""
    with silent_disk(monkeypatch) as silent:
        yield silent


class Unhurried(Run):
    """A run whose windows take so long that none is passed by a save that has neither ended nor been given up."""

    def _declare(self, phase: Phase) -> None:
        super()._declare(phase)
        until(lambda: not self.writer.is_saving or self.writer.trouble is not None, "the end of the budget")


def run_of(tmp_path: Path, windows: int = 20, policy: str = "pause") -> Run:
    """A run whose saves have a twentieth of a second."""
    checkpoint = FEW | {"on_disk_error": policy}
    return Unhurried(tmp_path, job={"windows": windows}, checkpoint=checkpoint, watchdog=IMPATIENT)


def test_a_budget_is_learned_and_bounded() -> None:
    """At first the bound; then a multiple of what saves took, and never less than the least."""
    told: list[m.Report] = []
    clock, section = SaveClock(told.append), WatchdogSection(checkpoint_seconds=1e-9, least_seconds=1e-9)
    clock.begin(3, "asked", section)

    first = clock.stalled()

    assert first is not None
    assert (first.window, first.request_id, first.reason) == (3, "asked", Trouble.STALLED)
    assert clock.stalled() is first and told == [first]
    clock.learn(1000.0)
    clock.begin(4, "", WatchdogSection())
    assert clock.stalled() is None


def test_nothing_is_judged_where_the_watchdog_is_off() -> None:
    """`watchdog.enabled = false` means that everything may take as long as it likes."""
    clock = SaveClock(lambda _report: None)

    clock.begin(3, "", WatchdogSection(enabled=False, checkpoint_seconds=1e-9))

    assert clock.stalled() is None


def test_a_run_waits_for_a_disk_that_does_not_answer(tmp_path: Path, disk: SilentDisk) -> None:
    """It holds and says why, goes on when the save has ended after all, and is complete."""
    run = run_of(tmp_path)
    run.on_report(m.Holding, disk.answer)

    assert run.finish().result == "completed"

    failed, held = run.said(m.SaveFailed)[0], run.said(m.Holding)[0]
    assert (failed.window, failed.reason) == (5, Trouble.STALLED)
    assert held.until_saved and "neither taken nor refused" in held.reason and "waited for" in held.reason
    assert 5 in [saved.window for saved in run.said(m.Saved)]


def test_a_run_that_skips_goes_on_beside_it(tmp_path: Path, disk: SilentDisk) -> None:
    """One failure is told, however many windows pass."""
    run = run_of(tmp_path, windows=40, policy="skip")
    run.on_report(m.SaveFailed, lambda: disk.answer_at(lambda: run.loop.window >= 20))

    assert run.finish().result == "completed"

    stalled = [failed.window for failed in run.said(m.SaveFailed)]
    assert stalled[0] == 5 and len(set(stalled)) == len(stalled)  # on a slow disk, others too
    assert run.said(m.Holding) == []


def test_a_run_that_aborts_does_not_wait_for_it(tmp_path: Path, disk: SilentDisk) -> None:
    """It has failed, says why, and leaves the thread behind that waits for the disk."""
    run = run_of(tmp_path, windows=100_000, policy="abort")

    finished = run.finish()

    assert finished.result == "failed"
    assert "the checkpoint of window 5 could not be written: the disk has neither" in finished.message
    assert not disk.has_answered


def test_an_operator_may_go_on_without_it(tmp_path: Path, disk: SilentDisk) -> None:
    """The same save is not met again."""
    run = run_of(tmp_path)
    run.on_report(m.Holding, lambda: run.orders.put(m.Resume(request_id="go")))
    run.on_report(m.Going, lambda: disk.answer_at(lambda: run.loop.window >= 15))

    assert run.finish().result == "completed"

    held = [holding.window for holding in run.said(m.Holding)]
    assert len(set(held)) == len(held) and all(window >= 15 for window in held[1:])


def test_whoever_asked_for_the_save_is_told(tmp_path: Path, disk: SilentDisk) -> None:
    """The failure carries the request's id, so that `ampctl checkpoint` ends."""
    desk = Desk(tmp_path)
    desk.writer.save(
        SaveTask(
            window=1, seq=0, state={"w": torch.ones(1)}, keep=Keep(last=2), stall_seconds=0.0, request_id="mine",
            watchdog=WatchdogSection(checkpoint_seconds=0.01),
        )
    )  # fmt: skip

    until(lambda: desk.writer.trouble is not None, "the end of the budget")

    assert [failed.request_id for failed in desk.said(m.SaveFailed)] == ["mine"]
    disk.answer()
    desk.writer.wait()
    assert desk.writer.trouble is None
    desk.writer.close()
