"""The one thread that writes to the job directory: rows of losses.jsonl, and checkpoints. The loop never waits for it.

Order is what makes a resume exact: rows handed over before a checkpoint are on disk (fsynced) before the checkpoint
becomes visible, and the checkpoint knows how long the file was then; a resume cuts it back to that length. The
queue holds at most one checkpoint, because the loop asks `is_saving` before it copies a state.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from ampd.core.ledger import Cause, WindowRecord
from ampd.core.messages import Quarantined, Report, Saved, SaveFailed, Warned
from ampd.engine import checkpoint
from ampd.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveTask:
    """A copied state to be saved; the copy belongs to the writer from here on."""

    window: int
    seq: int
    state: Mapping[str, Any]
    keep: int
    stall_seconds: float
    unjudged: Collection[str] = ()
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineTask:
    """A window that was never applied; `content` is a tree as of a checkpoint."""

    window: int
    cause: Cause
    content: Mapping[str, Any]


class Writer:
    """Owns the files of a job directory; `rows` and `save` are for the loop's thread and do not block."""

    def __init__(self, directory: Path, report: Callable[[Report], None]) -> None:
        self.directory = directory
        self.row_bytes = 0
        self._report = report
        self._tasks: queue.SimpleQueue[bytes | SaveTask | QuarantineTask | None] = queue.SimpleQueue()
        self._unwritten = bytearray()
        self._has_warned = False
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name="ampd-writer", daemon=True)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.directory / "checkpoints"

    @property
    def is_saving(self) -> bool:
        """A checkpoint is being written."""
        return not self._idle.is_set()

    def start(self, row_bytes: int) -> None:
        """Cut losses.jsonl to its first `row_bytes` bytes and begin."""
        self.row_bytes = row_bytes
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._losses.open("ab") as file:
            file.truncate(row_bytes)
        self._thread.start()

    def rows(self, records: Sequence[WindowRecord]) -> None:
        """Append windows to losses.jsonl."""
        content = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        self.row_bytes += len(content)
        self._tasks.put(content)

    def save(self, task: SaveTask) -> None:
        """Write a checkpoint in the background; reported as Saved or SaveFailed."""
        self._idle.clear()
        self._tasks.put(task)

    def quarantine(self, task: QuarantineTask) -> None:
        """Keep a window in the background; reported as Quarantined."""
        self._tasks.put(task)

    def wait(self) -> None:
        """Block until no checkpoint is being written."""
        self._idle.wait()

    def close(self) -> None:
        """Finish what was handed over and end the thread."""
        self._tasks.put(None)
        self._thread.join()

    @property
    def _losses(self) -> Path:
        return self.directory / "losses.jsonl"

    def _run(self) -> None:
        with self._losses.open("ab", buffering=0) as file:
            while (task := self._tasks.get()) is not None:
                if isinstance(task, SaveTask):
                    self._save(task, file)
                    self._idle.set()
                elif isinstance(task, QuarantineTask):
                    self._quarantine(task)
                else:
                    self._append(task, file)

    def _append(self, rows: bytes, file: FileIO) -> None:
        """Write rows, and those that an earlier trouble with the disk kept back."""
        self._unwritten += rows
        try:
            while self._unwritten:
                del self._unwritten[: file.write(self._unwritten)]
            self._has_warned = False
        except OSError as error:
            if self._has_warned:
                return
            self._has_warned = True
            self._report(
                Warned(
                    topic="losses", message=f"{self._losses} cannot be written now, rows are kept: {error}"
                )
            )

    def _quarantine(self, task: QuarantineTask) -> None:
        try:
            path = checkpoint.quarantine(self.directory / "quarantine", task.window, task.content)
        except Exception as error:  # noqa: BLE001  # the thread's top: later tasks must still be done
            self._report(
                Warned(topic="quarantine", message=f"window {task.window} could not be kept: {error}")
            )
        else:
            self._report(Quarantined(window=task.window, cause=task.cause, path=str(path)))

    def _save(self, task: SaveTask, file: FileIO) -> None:
        start = time.perf_counter()
        try:
            self._append(b"", file)
            if self._unwritten:
                raise CheckpointError(f"{self._losses} is behind, so a checkpoint would not fit it")
            os.fsync(file.fileno())
            path, size = checkpoint.save(self.checkpoints, task.window, task.seq, task.state, task.unjudged)
            checkpoint.prune(self.checkpoints, task.keep)
        except Exception as error:  # noqa: BLE001  # the thread's top: the loop waits for an end, good or bad
            self._report(SaveFailed(window=task.window, message=str(error), request_id=task.request_id))
            return
        seconds = time.perf_counter() - start
        self._report(
            Saved(
                window=task.window, path=str(path), bytes=size, seconds=seconds,
                stall_seconds=task.stall_seconds, request_id=task.request_id,
            )
        )  # fmt: skip
