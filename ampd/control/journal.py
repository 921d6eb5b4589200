"""What was asked of a job and what became of it, so that a change survives any crash and happens once.

One line of JSON for each record, in a file that only grows. A request that changes the run is `accepted` before it
is sent to the worker, and `applied` or `refused` before its reply is sent: whatever a client was told is on disk.
After a crash the file says what to do again at which window, what was promised and not yet done, and what to answer
to somebody who asks again with the same id.

A record is durable once `append` returns: written and fsynced, by one thread, in the order of the calls (the event
loop never waits for a disk). A line without its newline was never promised to anybody, and is cut off at open. A
write that fails is cut off too, so that a full disk damages nothing that was there. No database: the file is read
whole, once per start, and holds a line for each thing that an operator did.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from ampd.core.change import Difference
from ampd.core.history import Revision, revision_of
from ampd.core.messages import Act, Action, AppliedAction
from ampd.core.protocol import Refusal, Reply
from ampd.errors import CheckpointError


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", forbid_unknown_fields=True):
    """A line of the journal; `time` is in Unix seconds."""

    time: float


class Accepted(Entry, frozen=True, tag="accepted"):
    """An action was promised to its author."""

    request_id: str
    action: Action
    author: str = ""
    reason: str = ""


class Applied(Entry, frozen=True, tag="applied"):
    """An action took effect and moved `differences`; `reply` is what its author was answered, where one asked."""

    applied: AppliedAction
    reply: Reply | None = None
    differences: tuple[Difference, ...] = ()


class Refused(Entry, frozen=True, tag="refused"):
    """An accepted action could not be carried out, and changed nothing."""

    reply: Refusal


Record = Accepted | Applied | Refused


class Journal:
    """The journal of one job, from `open` to `close`; its methods are for the event loop's thread."""

    def __init__(self, file: int, size: int, records: list[Record]) -> None:
        self._file = file
        self._size = size
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._accepted: dict[str, Accepted] = {}
        self._applied: dict[int, Applied] = {}
        self._answers: dict[str, Reply] = {}
        for record in records:
            self._enter(record)

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read the journal, or begin one; raises CheckpointError where a line other than the last is damaged."""
        try:
            content = path.read_bytes() if path.exists() else b""
            whole, records = _read(content, path)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(file, whole)
            os.fsync(file)
            _sync_directory(path.parent)
        except OSError as error:
            raise CheckpointError(f"cannot open the journal {path}: {error.strerror}") from None
        return cls(file, whole, records)

    async def append(self, record: Record) -> None:
        """Make a record durable; raises CheckpointError where the disk refuses it, and then nothing was recorded."""
        loop = asyncio.get_running_loop()
        written = loop.run_in_executor(self._writer, self._write, msgspec.json.encode(record) + b"\n")
        # Entered by callback: once durable it holds, even where the one who waits is cancelled.
        written.add_done_callback(lambda done: self._settle(record, done))
        await asyncio.shield(written)

    def applied(self) -> tuple[AppliedAction, ...]:
        """Every action that took effect, in the order in which they did; a repeated `seq` counts once, as last told."""
        return tuple(self._applied[seq].applied for seq in sorted(self._applied))

    def revisions(self) -> tuple[Revision, ...]:
        """Every change of the configuration that took effect, oldest first."""
        records = (self._applied[seq] for seq in sorted(self._applied))
        made = (revision_of(record.applied, record.differences, record.time) for record in records)
        return tuple(revision for revision in made if revision is not None)

    def pending(self) -> tuple[Act, ...]:
        """What was accepted and neither applied nor refused, oldest first."""
        return tuple(
            Act(request_id=entry.request_id, action=entry.action, author=entry.author, reason=entry.reason)
            for entry in self._accepted.values()
        )

    def answer_of(self, request_id: str) -> Reply | None:
        """What a request was answered, if it was; the answer to asking again."""
        return self._answers.get(request_id)

    def close(self) -> None:
        """Finish what is being written; may be called twice."""
        self._writer.shutdown()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _enter(self, record: Record) -> None:
        match record:
            case Accepted():
                self._accepted[record.request_id] = record
            case Applied():
                self._accepted.pop(record.applied.request_id, None)
                self._applied[record.applied.seq] = record
                if record.reply is not None:
                    self._answers[record.reply.id] = record.reply
            case Refused():
                self._accepted.pop(record.reply.id, None)
                self._answers[record.reply.id] = record.reply

    def _settle(self, record: Record, written: asyncio.Future[None]) -> None:
        if not written.cancelled() and written.exception() is None:
            self._enter(record)

    def _write(self, line: bytes) -> None:
        """On the writer's thread."""
        try:
            written = os.pwrite(self._file, line, self._size)
            if written < len(line):
                raise OSError(0, f"only {written} of {len(line)} bytes were written")
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise CheckpointError(f"cannot write to the journal: {error.strerror}") from error
        self._size += len(line)


def _read(content: bytes, path: Path) -> tuple[int, list[Record]]:
    """The records, and how many bytes of the content they are."""
    whole, records = 0, []
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            if not line.endswith(b"\n"):
                break
            records.append(msgspec.json.decode(line, type=Record))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if number == len(lines):
                break
            raise CheckpointError(
                f"{path} line {number} is damaged ({error}), so the changes made to this job cannot be trusted;"
                " restore the file, or start over with --fresh"
            ) from None
        whole += len(line)
    return whole, records


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
