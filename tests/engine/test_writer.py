"""The writer: rows before checkpoints, nothing lost to a disk that is full for a while, and the loop never waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ampd.core import messages as m
from ampd.core.ledger import WindowRecord
from ampd.core.precision import Precision
from ampd.engine import checkpoint
from ampd.engine.retention import Keep
from ampd.engine.writer import SaveTask, Writer
from tests.engine.disks import full_beyond

DEADLINE_SECONDS = 20.0


class Desk:
    """A writer on a directory, and what it said; `on_report` is called on the writer's thread."""

    def __init__(self, directory: Path, row_bytes: int = 0) -> None:
        self.reports: list[m.Report] = []
        self.on_report: Callable[[m.Report], None] = lambda _report: None
        self.writer = Writer(directory, self._take)
        self.losses = directory / "losses.jsonl"
        self.writer.start(row_bytes)

    def _take(self, report: m.Report) -> None:
        self.on_report(report)
        self.reports.append(report)

    def rows(self, *windows: int) -> None:
        """Hand over a row for each of these windows."""
        self.writer.rows([row(window) for window in windows])

    def save(
        self, window: int, state: dict[str, Any] | None = None, keep: int = 3, request_id: str = ""
    ) -> None:
        """Hand over a checkpoint and wait for its report."""
        chosen = {"model": {"w": torch.ones(3)}} if state is None else state
        self.writer.save(
            SaveTask(
                window=window,
                seq=0,
                state=chosen,
                keep=Keep(last=keep),
                stall_seconds=0.25,
                request_id=request_id,
            )
        )
        self.writer.wait()

    @property
    def written(self) -> list[int]:
        """The windows in losses.jsonl, in order; fails where a line is broken."""
        return [json.loads(line)["window"] for line in self.losses.read_text().splitlines()]

    def said(self, kind: type[Any]) -> list[Any]:
        """The reports of a kind."""
        return [report for report in self.reports if isinstance(report, kind)]


def row(window: int) -> WindowRecord:
    """A window's row."""
    return WindowRecord(
        window=window,
        epoch=0,
        loss=1.5,
        precision=Precision.FLOAT32,
        first=Precision.FLOAT32,
        lr=0.1,
        grad_norm=1.0,
    )


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A writer that is closed when the test is over."""
    made = Desk(tmp_path)
    yield made
    made.writer.close()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition of another thread; fails at the deadline."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        threading.Event().wait(0.002)


def test_rows_are_appended_in_order(desk: Desk) -> None:
    """One line for each window, and `row_bytes` is how long the file will be."""
    desk.rows(0, 1)
    desk.rows(2)
    desk.save(3)

    assert desk.written == [0, 1, 2]
    assert desk.writer.row_bytes == desk.losses.stat().st_size


def test_a_row_is_the_window_as_data(desk: Desk) -> None:
    """A line of losses.jsonl has every field of the record."""
    desk.rows(4)
    desk.save(5)

    line = json.loads(desk.losses.read_text())
    assert set(line) == set(WindowRecord.__struct_fields__)
    assert (line["window"], line["loss"], line["precision"]) == (4, 1.5, "float32")


def test_closing_finishes_what_was_handed_over(tmp_path: Path) -> None:
    """Rows and checkpoints in the queue are written before the thread ends."""
    desk = Desk(tmp_path)
    desk.rows(*range(100))
    desk.writer.save(
        SaveTask(window=100, seq=0, state={"w": torch.ones(1)}, keep=Keep(last=2), stall_seconds=0.0)
    )

    desk.writer.close()

    assert desk.written == list(range(100))
    assert [saved.window for saved in desk.said(m.Saved)] == [100]
    assert "ampd-writer" not in [thread.name for thread in threading.enumerate()]


def test_starting_cuts_rows_back(tmp_path: Path) -> None:
    """Rows after the checkpoint that is resumed from are dropped; they will be written again."""
    first = Desk(tmp_path)
    first.rows(0, 1)
    kept = first.writer.row_bytes
    first.rows(2, 3)
    first.writer.close()

    second = Desk(tmp_path, row_bytes=kept)
    second.rows(2)
    second.writer.close()

    assert second.written == [0, 1, 2]


def test_rows_are_on_disk_before_the_checkpoint_is_visible(desk: Desk) -> None:
    """What a checkpoint says of the file is true from the first moment that it can be found."""
    lengths: list[int] = []
    desk.on_report = lambda report: lengths.append(desk.losses.stat().st_size)

    for window in range(5):
        desk.rows(window)
        expected = desk.writer.row_bytes
        desk.save(window + 1)
        assert lengths[-1] == expected


def test_a_checkpoint_is_reported_whole(desk: Desk) -> None:
    """Where it is, how large, what it cost the loop, and who asked."""
    desk.save(7, request_id="asked")

    (saved,) = desk.said(m.Saved)
    manifest = checkpoint.verify(Path(saved.path))
    assert (saved.window, saved.request_id, saved.stall_seconds) == (7, "asked", 0.25)
    assert (manifest.window, saved.bytes) == (7, sum(entry.bytes for entry in manifest.files.values()))


def test_old_checkpoints_are_pruned(desk: Desk) -> None:
    """Each save keeps as many as its configuration said."""
    for window in range(1, 6):
        desk.save(window, keep=2)

    assert [p.name for p in checkpoint.listed(desk.writer.checkpoints)] == [
        "window-00000004-0000", "window-00000005-0000",
    ]  # fmt: skip


def test_a_state_that_cannot_be_saved_is_reported(desk: Desk) -> None:
    """The previous one stands, and the writer goes on."""
    desk.save(1)
    desk.save(2, {"w": torch.tensor([float("nan")])}, request_id="asked")
    desk.rows(2)
    desk.save(3)

    (failed,) = desk.said(m.SaveFailed)
    assert (failed.window, failed.request_id) == (2, "asked")
    assert "not finite" in failed.message
    assert [saved.window for saved in desk.said(m.Saved)] == [1, 3]
    assert desk.written == [2]


def test_saving_is_seen_while_it_lasts(desk: Desk) -> None:
    """The loop asks before it copies a state; from handing over to the report the answer is yes."""
    holding, seen = threading.Event(), []
    desk.on_report = lambda _report: seen.append(holding.wait(DEADLINE_SECONDS))

    assert not desk.writer.is_saving
    desk.writer.save(
        SaveTask(window=1, seq=0, state={"w": torch.ones(1)}, keep=Keep(last=2), stall_seconds=0.0)
    )
    assert desk.writer.is_saving
    holding.set()
    desk.writer.wait()

    assert (seen, desk.writer.is_saving) == ([True], False)


def test_the_loop_does_not_wait_for_the_disk(desk: Desk) -> None:
    """Handing over returns while the writer is still busy with what came before."""
    holding = threading.Event()

    def hold(_report: m.Report) -> None:
        holding.wait(DEADLINE_SECONDS)

    desk.on_report = hold
    desk.writer.save(
        SaveTask(window=1, seq=0, state={"w": torch.ones(1)}, keep=Keep(last=2), stall_seconds=0.0)
    )
    desk.rows(*range(50))

    assert desk.writer.is_saving
    assert not holding.is_set()
    holding.set()


def test_a_full_disk_keeps_rows(desk: Desk) -> None:
    """It is reported, and when there is room again every row is there once, in order, none cut in half."""
    desk.rows(*range(3))
    with full_beyond(desk.writer.row_bytes + 100):
        desk.rows(3, 4)
        until(lambda: bool(desk.said(m.Warned)), "a warning of the full disk")
    desk.rows(5)
    desk.save(6)

    assert desk.written == list(range(6))
    assert desk.said(m.Warned)[0].topic == "losses"
    assert str(desk.losses) in desk.said(m.Warned)[0].message
    assert [saved.window for saved in desk.said(m.Saved)] == [6]


def test_a_checkpoint_tries_rows_that_were_kept_again(desk: Desk) -> None:
    """With room again, the next checkpoint has them on disk before it, without waiting for another row."""
    with full_beyond(10):
        desk.rows(0)
        until(lambda: bool(desk.said(m.Warned)), "a warning of the full disk")

    desk.save(1)

    assert desk.written == [0]
    assert [saved.window for saved in desk.said(m.Saved)] == [1]


def test_no_checkpoint_while_rows_are_behind(desk: Desk) -> None:
    """It would name a length that the file does not have; the disk's own reason is told."""
    with full_beyond(10):
        desk.rows(0)
        desk.save(1)

    (failed,) = desk.said(m.SaveFailed)
    assert (failed.reason, failed.message) == ("full", f"{desk.losses}: File too large")
    assert checkpoint.listed(desk.writer.checkpoints) == []


def test_a_disk_that_is_full_for_a_checkpoint_is_reported(desk: Desk) -> None:
    """The most likely fault of a long run: it must cost a checkpoint, never the job."""
    task = SaveTask(window=1, seq=0, state={"w": torch.zeros(20_000)}, keep=Keep(last=2), stall_seconds=0.0)
    with full_beyond(30_000):
        desk.writer.save(task)
        until(lambda: not desk.writer.is_saving or "ampd-writer" not in threads(), "an end of saving")

    assert [failed.window for failed in desk.said(m.SaveFailed)] == [1]


def test_a_state_that_json_cannot_hold_is_reported(desk: Desk) -> None:
    """A workload whose capture() gives something else than tensors and plain data."""
    desk.writer.save(
        SaveTask(window=1, seq=0, state={"workload": {"x": object()}}, keep=Keep(last=2), stall_seconds=0.0)
    )
    until(lambda: not desk.writer.is_saving or "ampd-writer" not in threads(), "an end of saving")

    assert [failed.window for failed in desk.said(m.SaveFailed)] == [1]


def threads() -> list[str]:
    """The names of the threads that run."""
    return [thread.name for thread in threading.enumerate()]


def test_a_directory_is_made(tmp_path: Path) -> None:
    """A job's directory need not exist."""
    desk = Desk(tmp_path / "a" / "b")
    desk.rows(0)
    desk.writer.close()

    assert desk.written == [0]
