"""Every write that a worker makes fails in turn: no row and no earlier checkpoint is lost, and the next save is whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ampd.core import messages as m
from ampd.core.trouble import Trouble, trouble_of
from ampd.engine import checkpoint, disk, disk_hold
from ampd.engine.writer import CHECKPOINTS
from ampd.errors import CheckpointError
from tests.engine.disks import SmallDisk, small_disk
from tests.engine.operations import Fault, Operation, Operations
from tests.engine.runs import Run
from tests.engine.test_checkpoint import STATE, saved
from tests.engine.test_writer import Desk, until

SHORT = 0
FAULTS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS": errno.EROFS, "short": SHORT}


class Faulty:
    """A writer with two checkpoints, whose third save meets a fault at each operation in turn."""

    def __init__(self, home: Path, fault: Fault) -> None:
        self.desk = Desk(home)
        for window in (1, 2):
            self.desk.rows(window - 1)
            self.desk.save(window, STATE, keep=2)
        self.operations = Operations(home, fault)
        with self.operations.seen():
            self.desk.rows(2)
            self.desk.save(3, STATE, keep=2)

    def check(self) -> None:
        """Whatever happened: two whole checkpoints, and after the next save the newest is there with every row."""
        found = checkpoint.listed(self.desk.writer.checkpoints)
        assert len([checkpoint.verify(path) for path in found]) >= 2
        self.desk.rows(3)
        self.desk.save(4, STATE, keep=2)
        self.desk.writer.close()
        newest = checkpoint.listed(self.desk.writer.checkpoints)
        assert [checkpoint.verify(path).window for path in newest][-1] == 4
        assert self.desk.written == [0, 1, 2, 3]
        assert self.desk.writer.trouble is None
        assert list(self.desk.writer.checkpoints.glob(".*")) == []


def at(number: int, fault: int, *, stays: bool) -> Fault:
    """A disk that fails at one operation, or from there on."""

    def fails(count: int, operation: Operation) -> int | None:
        meets = count >= number if stays else count == number
        return fault if meets and (fault != SHORT or operation.kind == "write") else None

    return fails


def operations_of_a_save(home: Path) -> list[Operation]:
    """What a save does where nothing fails."""
    faulty = Faulty(home, lambda _number, _operation: None)
    faulty.check()
    return faulty.operations.log


@pytest.mark.parametrize("stays", [False, True], ids=["once", "from there on"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_operation_of_a_save_may_fail(tmp_path: Path, fault: str, stays: bool) -> None:
    """Once or for good, each in turn: what cannot be written is told by its reason, and what was there stands."""
    for number in range(len(operations_of_a_save(tmp_path / "plain"))):
        faulty = Faulty(tmp_path / str(number), at(number, FAULTS[fault], stays=stays))
        reasons = {report.reason for report in faulty.desk.said(m.SaveFailed)}
        assert reasons <= {trouble_of(FAULTS[fault])}
        assert not (fault == "short" and reasons)
        faulty.check()


@pytest.mark.parametrize("kind", ["create", "write", "fsync", "mkdir", "rename"])
def test_a_save_that_fails_is_told_with_its_reason(tmp_path: Path, kind: str) -> None:
    """Whichever kind of operation it is: one report, with where, what and why."""

    def fails(_number: int, operation: Operation) -> int | None:
        return errno.EIO if operation.kind == kind and operation.path.startswith("checkpoints") else None

    faulty = Faulty(tmp_path, fails)

    failed = faulty.desk.said(m.SaveFailed)
    assert [(report.window, report.reason) for report in failed] == [(3, Trouble.IO)]
    assert failed[0].message.startswith(str(tmp_path)) and "Input/output error" in failed[0].message
    faulty.desk.writer.close()


def test_rows_whose_sync_failed_are_written_again(tmp_path: Path) -> None:
    """The kernel may have dropped them, and would call the next sync good: what was not settled is cut off and repeated."""
    calls: list[Operation] = []

    def fails_once(_number: int, operation: Operation) -> int | None:
        calls.append(operation)
        is_first = [c.kind for c in calls].count("fsync") == 1
        return errno.EIO if operation.kind == "fsync" and is_first else None

    faulty = Faulty(tmp_path, fails_once)

    (failed,) = faulty.desk.said(m.SaveFailed)
    settled = len(faulty.desk.losses.read_bytes().rpartition(b"\n{")[0]) + 1
    with faulty.operations.seen():
        faulty.check()
    assert [o.size for o in faulty.operations.log if o.kind == "truncate"] == [settled]
    assert failed.message == f"{faulty.desk.losses}: Input/output error"


def test_a_disk_that_lies_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is read back before it is vouched for: a write that was said to be done and was not is an error."""
    before, real = saved(tmp_path, 1), disk.append
    monkeypatch.setattr(disk, "append", lambda file, content: real(file, bytes(len(content))))

    with pytest.raises(OSError, match="reads back as something else"):
        checkpoint.save(tmp_path, 2, 0, STATE)

    assert checkpoint.listed(tmp_path) == before


def test_a_write_that_takes_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be tried for ever otherwise."""
    monkeypatch.setattr(os, "write", lambda _file, _content: 0)

    with pytest.raises(OSError, match="takes no more"):
        disk.write(tmp_path / "a", [b"content"])


def test_what_could_not_be_pruned_does_not_fail_the_save(tmp_path: Path) -> None:
    """The new checkpoint counts, the old one stays and is told of."""

    def fails(_number: int, operation: Operation) -> int | None:
        is_pruning = operation.kind == "rename" and operation.other.endswith(".removed")
        return errno.EROFS if is_pruning else None

    faulty = Faulty(tmp_path, fails)

    assert [report.window for report in faulty.desk.said(m.Saved)] == [1, 2, 3]
    (warned,) = faulty.desk.said(m.Warned)
    assert (warned.topic, "Read-only file system" in warned.message) == ("prune", True)
    faulty.check()


# Real disks.


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first retry after a moment, for the tests' sake."""
    monkeypatch.setattr(disk_hold, "_FIRST_SECONDS", 0.05)


def test_room_is_looked_for_before_anything_is_written(tmp_path: Path) -> None:
    """The error says how much is needed, how much is free and where; nothing was touched."""
    with small_disk(tmp_path / "disk") as small:
        with pytest.raises(OSError, match=r"8\.5 MB are needed, .* MB are free: '.*/disk'") as raised:
            checkpoint.save(small.path, 1, 0, {"model": {"w": torch.zeros(1_750_000)}})

        assert trouble_of(raised.value.errno) is Trouble.FULL
        assert list(small.path.iterdir()) == []


def full(small: SmallDisk) -> None:
    """No room at all."""
    small.fill()


def read_only(small: SmallDisk) -> None:
    """As after an error of the device."""
    small.remount("ro")


def mend(small: SmallDisk) -> None:
    """As an operator does."""
    small.remount("rw")
    small.path.joinpath("ballast").unlink(missing_ok=True)


BREAK: dict[str, Callable[[SmallDisk], None]] = {"full": full, "read_only": read_only}
FEW = {"every_windows": 5}


@pytest.mark.parametrize(
    ("trouble", "place"), [("full", "run"), ("full", "run/checkpoints"), ("read_only", "run/checkpoints")]
)
def test_a_paused_run_goes_on_when_the_disk_is_mended(tmp_path: Path, trouble: str, place: str) -> None:
    """It holds and says why, tries again by itself, and ends with the losses and weights of a run that met nothing."""
    whole = Run(tmp_path / "whole", job={"windows": 20}, checkpoint=FEW)
    whole.finish()
    with small_disk(tmp_path / place) as small:
        run = Run(tmp_path / "run", job={"windows": 20}, checkpoint=FEW)
        BREAK[trouble](small)
        run.on_report(m.Holding, lambda: mend(small))

        assert run.finish().result == "completed"

        assert run.losses == whole.losses
        assert checkpoint_files(run) == checkpoint_files(whole)
    assert trouble in {failed.reason for failed in run.said(m.SaveFailed)}
    assert "`ampctl resume` goes on without it" in run.said(m.Holding)[0].reason
    assert len(run.said(m.Holding)) == len(run.said(m.Going)) == 1


def checkpoint_files(run: Run) -> dict[str, str]:
    """Checksums of the newest checkpoint."""
    newest = checkpoint.listed(run.directory / CHECKPOINTS)[-1]
    return {name: entry.sha256 for name, entry in checkpoint.verify(newest).files.items()}


def test_a_run_that_skips_goes_on(tmp_path: Path) -> None:
    """Failed saves are told of; the first that finds room is made, and no row is missing."""
    with small_disk(tmp_path / "disk") as small:
        run = Run(small.path / "run", job={"windows": 20}, checkpoint=FEW | {"on_disk_error": "skip"})
        full(small)
        run.on_report(m.SaveFailed, lambda: mend(small))

        assert run.finish().result == "completed"

        assert len(run.losses.splitlines()) == 20
    assert run.said(m.Holding) == []
    assert run.said(m.Saved)[-1].window == 20


def test_a_run_that_aborts_has_failed(tmp_path: Path) -> None:
    """At the boundary after the failed save, with the disk's reason; the last good checkpoint stands."""
    with small_disk(tmp_path / "disk") as small:
        run = Run(small.path / "run", job={"windows": 2000}, checkpoint=FEW | {"on_disk_error": "abort"})
        full(small)

        finished = run.finish()

    assert (finished.result, finished.exit_code) == ("failed", 1)
    assert finished.message.startswith("the checkpoint of window 5 could not be written")


@pytest.mark.parametrize("policy", ["skip", "abort"])
def test_a_run_whose_result_is_not_on_disk_has_failed(tmp_path: Path, policy: str) -> None:
    """All windows were run, but the weights are nowhere: it says so, and what to do."""
    with small_disk(tmp_path / "disk") as small:
        run = Run(small.path / "run", job={"windows": 4}, checkpoint={"on_disk_error": policy})
        full(small)

        finished = run.finish()

    assert (finished.result, finished.window) == ("failed", 4)
    assert "goes on from the checkpoint before" in finished.hint


def test_a_result_waits_for_room(tmp_path: Path) -> None:
    """With `pause`, a run that is complete but for its last checkpoint holds until that can be written."""
    with small_disk(tmp_path / "disk") as small:
        run = Run(small.path / "run", job={"windows": 4})
        full(small)
        run.on_report(m.Holding, lambda: mend(small))

        assert run.finish().result == "completed"

    assert run.said(m.Saved)[-1].window == 4


def test_a_stop_does_not_wait_for_room(tmp_path: Path) -> None:
    """Whoever stops a job on a full disk is told that it was not saved."""
    with small_disk(tmp_path / "disk") as small:
        run = Run(small.path / "run", job={"windows": 2000}, checkpoint=FEW)
        full(small)
        run.on_report(m.Holding, lambda: run.orders.put(m.Stop(request_id="asked")))

        finished = run.finish()

    assert (finished.result, finished.request_id) == ("failed", "asked")
    assert "could not be written" in finished.message


@pytest.mark.parametrize(
    "order", [m.Resume(request_id="go"), m.Act(request_id="a", action=m.Configure(changes={"checkpoint.on_disk_error": "skip"}))]
)  # fmt: skip
def test_an_operator_may_go_on_without(tmp_path: Path, order: m.Order) -> None:
    """By resuming, or by changing what is to happen; the next checkpoint is tried at its time."""
    with small_disk(tmp_path / "disk") as small:
        run = Run(small.path / "run", job={"windows": 7}, checkpoint=FEW)
        full(small)
        run.on_report(m.Holding, lambda: run.orders.put(order))
        run.on_report(m.Going, lambda: mend(small))

        assert run.finish().result == "completed"

    assert run.said(m.Saved)[-1].window == 7


def holding_again(small: SmallDisk, **more: Any) -> Run:
    """The next worker of a run that held for its disk, on a disk that is still full."""
    first = Run(small.path / "run", job={"windows": 12}, checkpoint=FEW | more)
    first.on_report(m.Saved, lambda: first.orders.put(m.Stop(save=False)))
    first.finish()
    full(small)
    again = Run(small.path / "run", job={"windows": 12}, checkpoint=FEW | more)
    again.orders.put(m.Pause(request_id="supervisor:pause-again", reason="no room", until_saved=True))
    return again


def test_a_hold_is_taken_over_by_the_next_worker(tmp_path: Path) -> None:
    """Its state is on the disk, and still it waits for room, for the same reason, and goes on by itself."""
    with small_disk(tmp_path / "disk") as small:
        run = holding_again(small)
        run.on_report(m.SaveFailed, lambda: mend(small))

        assert run.finish().result == "completed"

    (held,) = run.said(m.Holding)
    assert (held.window, held.reason, held.until_saved) == (run.said(m.Ready)[0].window, "no room", True)
    assert {failed.reason for failed in run.said(m.SaveFailed)} == {Trouble.FULL}
    assert [going.window for going in run.said(m.Going)] == [held.window]


def test_a_stop_of_a_hold_that_was_taken_over_has_lost_nothing(tmp_path: Path) -> None:
    """The state is the checkpoint that it came from: the job is stopped, not failed."""
    with small_disk(tmp_path / "disk") as small:
        run = holding_again(small)
        run.on_report(m.SaveFailed, lambda: run.orders.put(m.Stop(request_id="asked")))

        assert run.finish().result == "stopped"


def test_a_hold_that_is_not_wanted_any_more_ends_at_once(tmp_path: Path) -> None:
    """Where failed saves are to be skipped, nothing is waited for."""
    with small_disk(tmp_path / "disk") as small:
        run = holding_again(small, on_disk_error="skip")
        run.on_report(m.Going, lambda: mend(small))

        assert run.finish().result == "completed"


def test_a_pause_ends_what_would_have_ended_by_itself(tmp_path: Path) -> None:
    """Who pauses a run that waits for its disk finds it paused when there is room again."""
    with small_disk(tmp_path / "disk") as small:
        run = holding_again(small)
        run.on_report(m.SaveFailed, lambda: run.orders.put(m.Pause(request_id="mine")))
        run.on_report(m.Saved, lambda: run.orders.put(m.Resume(request_id="on")))

        def make_room() -> None:
            mend(small)
            run.orders.put(m.Checkpoint(request_id="now"))

        run.on_report(m.Holding, lambda: run.on_report(m.Holding, make_room))
        assert run.finish().result == "completed"

    assert [held.until_saved for held in run.said(m.Holding)] == [True, False]
    assert [going.request_id for going in run.said(m.Going)] == ["on"]


def test_a_job_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Before anything is trained: where, and why."""
    with small_disk(tmp_path / "disk") as small:
        small.remount("ro")

        with pytest.raises(CheckpointError, match=r"job directory cannot be written: .*/disk/run: Read-only"):
            Run(small.path / "run")


def test_a_slow_sync_does_not_hold_up_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows go on while a checkpoint waits for the disk; those that came due meanwhile are one when it is done."""
    run, real = Run(tmp_path, job={"windows": 40}, checkpoint=FEW), os.fsync

    def slow(descriptor: int) -> None:
        until(lambda: run.loop.window >= 20, "the twentieth window")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    assert run.finish().result == "completed"

    assert run.said(m.SaveFailed) == []
    first, second, *_rest = run.said(m.Saved)
    assert (first.window, second.window >= 20) == (5, True)
