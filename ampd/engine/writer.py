"""The one thread that writes to the job directory: rows of losses.jsonl, and checkpoints. The loop never waits for it.

Order is what makes a resume exact: rows handed over before a checkpoint are on disk (fsynced) before the checkpoint
becomes visible, and the checkpoint knows how long the file was then; a resume cuts it back to that length. The
queue holds at most one checkpoint, because the loop asks `is_saving` before it copies a state.

A disk that fails costs no row and no earlier checkpoint: rows that it did not take are kept and tried again with the
next, and no checkpoint is made until they are down. `trouble` is the failure of the last checkpoint, until one
succeeds, or that the present one has no end (`save_clock`); what follows from it (`checkpoint.on_disk_error`) is for the
loop to do.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ampd import failpoints
from ampd.core.config import WatchdogSection
from ampd.core.ledger import Cause, WindowRecord
from ampd.core.messages import Quarantined, Report, Saved, SaveFailed, Warned
from ampd.core.trouble import Trouble, trouble_of
from ampd.engine import checkpoint, disk, retention, shared_checkpoint
from ampd.engine.leaves import bytes_of
from ampd.engine.ranks import Peers
from ampd.engine.retention import Keep
from ampd.engine.save_clock import SaveClock
from ampd.errors import CheckpointError

CHECKPOINTS = "checkpoints"
"""Where checkpoints are in a job directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveTask:
    """A copied state to be saved; the copy belongs to the writer from here on."""

    window: int
    seq: int
    state: Mapping[str, Any]
    keep: Keep
    stall_seconds: float
    unjudged: Collection[str] = ()
    request_id: str = ""
    watchdog: WatchdogSection = field(default_factory=WatchdogSection)
    """What its budget follows from."""
    proves_room: bool = False
    """Whether it fails where the disk would take nothing more, though this state is there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineTask:
    """A window that was never applied; `content` is a tree as of a checkpoint."""

    window: int
    cause: Cause
    content: Mapping[str, Any]


class Files(Protocol):
    """What a loop keeps of a run."""

    @property
    def row_bytes(self) -> int:
        """How long losses.jsonl is."""
        ...

    @property
    def is_saving(self) -> bool:
        """A checkpoint is being written."""
        ...

    @property
    def trouble(self) -> SaveFailed | None:
        """The failure of the last checkpoint, until one succeeds, or that the present one does not end."""
        ...

    def start(self, row_bytes: int) -> None:
        """Cut losses.jsonl to its first `row_bytes` bytes and begin."""
        ...

    def rows(self, records: Sequence[WindowRecord]) -> None:
        """Append windows to losses.jsonl."""
        ...

    def save(self, task: SaveTask) -> None:
        """Write a checkpoint."""
        ...

    def quarantine(self, task: QuarantineTask) -> None:
        """Keep a window."""
        ...

    def wait(self) -> None:
        """Block until no checkpoint is being written."""
        ...

    def close(self) -> None:
        """Finish what was handed over."""
        ...


class Writer:
    """Owns the files of a job directory; `rows` and `save` are for the loop's thread and do not block."""

    def __init__(self, directory: Path, report: Callable[[Report], None], peers: Peers | None = None) -> None:
        self.directory = directory
        self._peers = peers
        self.row_bytes = 0
        self._report = report
        self._log = -1
        self._clock = SaveClock(report)
        self._failed: SaveFailed | None = None
        self._tasks: queue.SimpleQueue[bytes | SaveTask | QuarantineTask | None] = queue.SimpleQueue()
        self._rows = bytearray()  # those that are not known to be on disk for good
        self._written = 0  # bytes of them that the file has
        self._settled = 0  # length of the file that is there for good
        self._is_in_doubt = False  # what is behind that length may be lost already
        self._has_warned = False
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name="ampd-writer", daemon=True)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.directory / CHECKPOINTS

    @property
    def is_saving(self) -> bool:
        """A checkpoint is being written."""
        return not self._idle.is_set()

    @property
    def trouble(self) -> SaveFailed | None:
        """The failure of the last checkpoint, or that the present one does not end; None once one succeeds."""
        stalled = self._clock.stalled() if self.is_saving else None
        return stalled or self._failed

    def start(self, row_bytes: int) -> None:
        """Cut losses.jsonl to its first `row_bytes` bytes and begin; raises CheckpointError where that cannot be."""
        self.row_bytes = self._settled = row_bytes
        try:
            disk.make_directory(self.directory)
            self._log = disk.open_log(self._losses, row_bytes)
        except OSError as error:
            raise CheckpointError(f"the job directory cannot be written: {disk.words(error)}") from error
        self._thread.start()

    def rows(self, records: Sequence[WindowRecord]) -> None:
        """Append windows to losses.jsonl."""
        content = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        self.row_bytes += len(content)
        self._tasks.put(content)

    def save(self, task: SaveTask) -> None:
        """Write a checkpoint in the background; reported as Saved or SaveFailed."""
        self._clock.begin(task.window, task.request_id, task.watchdog)
        self._idle.clear()
        self._tasks.put(task)

    def quarantine(self, task: QuarantineTask) -> None:
        """Keep a window in the background; reported as Quarantined."""
        self._tasks.put(task)

    def wait(self) -> None:
        """Block until no checkpoint is being written."""
        self._idle.wait()

    def close(self) -> None:
        """Finish what was handed over and end the thread; one whose disk does not answer is left behind."""
        self._tasks.put(None)
        if not is_stalled(self.trouble):
            self._thread.join()

    @property
    def _losses(self) -> Path:
        return self.directory / "losses.jsonl"

    def _run(self) -> None:
        try:
            while (task := self._tasks.get()) is not None:
                if isinstance(task, SaveTask):
                    self._save(task)
                    self._idle.set()
                elif isinstance(task, QuarantineTask):
                    self._quarantine(task)
                else:
                    self._append(task)
        finally:
            os.close(self._log)

    def _append(self, rows: bytes) -> None:
        """Write rows, and those that an earlier trouble with the disk kept back."""
        self._rows += rows
        try:
            self._write_rows()
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                self._warn("losses", f"rows cannot be written now, and are kept: {disk.words(error)}")

    def _write_rows(self) -> None:
        with disk.naming(self._losses):
            if self._is_in_doubt:
                os.ftruncate(self._log, self._settled)
                self._is_in_doubt, self._written = False, 0
            failpoints.reach("losses.write")
            while self._written < len(self._rows):
                self._written += disk.take_some(self._log, self._rows[self._written :])
        self._has_warned = False

    def _settle_rows(self) -> None:
        """Every row on disk for good, or OSError.

        Where a sync fails, the kernel may forget what was written and call the next sync good: so what is in doubt is
        cut off before the next write, and written again.
        """
        self._write_rows()
        with disk.naming(self._losses):
            self._is_in_doubt = True
            failpoints.reach("losses.fsync")
            os.fsync(self._log)
            self._is_in_doubt = False
        self._settled += len(self._rows)
        self._rows.clear()
        self._written = 0

    def _quarantine(self, task: QuarantineTask) -> None:
        try:
            path = checkpoint.quarantine(self.directory / "quarantine", task.window, task.content)
        except Exception as error:  # noqa: BLE001  # the thread's top: later tasks must still be done
            self._warn("quarantine", f"window {task.window} could not be kept: {_told(error)}")
        else:
            self._report(Quarantined(window=task.window, cause=task.cause, path=str(path)))

    def _save(self, task: SaveTask) -> None:
        start = time.perf_counter()
        try:
            path, size = self._write(task)
        except Exception as error:  # noqa: BLE001  # the thread's top: the loop waits for an end, good or bad
            self._fail(task, error)
            return
        self._prune(task.keep)
        self._failed, seconds = None, time.perf_counter() - start
        self._clock.learn(seconds)
        self._report(
            Saved(
                window=task.window, path=str(path), bytes=size, seconds=seconds,
                stall_seconds=task.stall_seconds, request_id=task.request_id,
            )
        )  # fmt: skip

    def _write(self, task: SaveTask) -> tuple[Path, int]:
        """The rows of the loss log, then the state, together with the other ranks where each has a part of it."""
        content = (self.checkpoints, task.window, task.seq, task.state, task.unjudged)
        if self._peers is None:
            self._prepare(task)
            return checkpoint.save(*content)
        with shared_checkpoint.Lead(self._peers) as lead:
            self._prepare(task)
            return lead.save(*content)

    def _prepare(self, task: SaveTask) -> None:
        self._settle_rows()
        if task.proves_room:
            disk.prove_room(self.checkpoints, bytes_of(task.state))

    def _fail(self, task: SaveTask, error: Exception) -> None:
        reason = trouble_of(error.errno) if isinstance(error, OSError) else Trouble.STATE
        self._failed = SaveFailed(
            window=task.window, message=_told(error), reason=reason, request_id=task.request_id
        )
        self._report(self._failed)

    def _prune(self, keep: Keep) -> None:
        try:
            retention.prune(self.checkpoints, keep)
        except OSError as error:
            self._warn("prune", f"old checkpoints cannot be deleted: {disk.words(error)}")

    def _warn(self, topic: str, message: str) -> None:
        self._report(Warned(topic=topic, message=message))


def _told(error: Exception) -> str:
    return disk.words(error) if isinstance(error, OSError) else str(error)


def is_stalled(trouble: SaveFailed | None) -> bool:
    """Whether the writer waits for a disk that does not answer."""
    return trouble is not None and trouble.reason is Trouble.STALLED
