"""The journal on the disk: lines are added to its end, and now and then it is written anew, shorter.

A line without its newline was never promised to anybody, and is cut off at open. A write that fails is cut off too, so
that a full disk damages nothing that was there.

To compact is to write the shortest lines that amount to the same beside the journal, fsync them, rename them over it
and fsync the directory: a crash at any of these steps leaves the old journal or the new one, whole. What is written is
made from the file itself and not from what the process believes, since the file is what was promised. It is done when
a third of the lines are worth nothing any more, so the cost of it is a few lines for each that is added. A file that
is only written anew in whole, or a database, would be safe as well; the first costs a change the whole history, and
neither can be read with `tail -f`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ampd import failpoints
from ampd.control.records import Account, Record
from ampd.errors import CheckpointError

SLACK = 1000
"""Lines that may be worth nothing before anything is written anew: a megabyte at most."""


class JournalFile:
    """Whole lines in a file, from `open` to `close`; one thread at a time."""

    def __init__(self, path: Path, file: int, size: int, *, lines: int, needed: int, slack: int) -> None:
        self._path = path
        self._file = file
        self._size = size
        self._lines = lines
        self._needed = needed  # at the last look: more may be by now
        self._slack = slack
        self._is_placed = True  # the directory is known to name this very file

    @classmethod
    def open(cls, path: Path, slack: int = SLACK) -> tuple[JournalFile, Account]:
        """Read the journal, or begin one; raises CheckpointError where a line other than the last is damaged."""
        try:
            content = path.read_bytes() if path.exists() else b""
            whole, records = _read(content, path)
            _beside(path).unlink(missing_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(file, whole)
            os.fsync(file)
            _sync_directory(path.parent)
        except OSError as error:
            raise CheckpointError(f"cannot open the journal {path}: {error.strerror}") from None
        account = Account(records)
        journal = cls(path, file, whole, lines=len(records), needed=len(account), slack=slack)
        if journal.is_bloated:
            journal.compact()
        return journal, account

    @property
    def is_bloated(self) -> bool:
        """Whether to compact is worth its while."""
        return self._lines > self._needed + self._needed // 2 + self._slack

    def append(self, lines: Sequence[bytes]) -> None:
        """Make lines durable, all or none; raises CheckpointError where the disk refuses them."""
        text = b"".join(lines)
        try:
            self._place()
            failpoints.reach("journal.write")
            written = os.pwrite(self._file, text, self._size)
            if written < len(text):
                raise OSError(0, f"only {written} of {len(text)} bytes were written")
            failpoints.reach("journal.fsync")
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise CheckpointError(f"cannot write to the journal: {error.strerror}") from error
        self._size += len(text)
        self._lines += len(lines)

    def compact(self) -> None:
        """Write the journal anew with the fewest lines; where the disk refuses, the longer one stays, and a log tells."""
        try:
            self._rewrite()
        except (OSError, CheckpointError) as error:
            self._needed = self._lines  # not again before it has grown
            logging.getLogger(__name__).warning("journal.not_compacted: %s: %s", self._path, error)

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _rewrite(self) -> None:
        whole, records = _read(os.pread(self._file, self._size, 0), self._path)
        if whole != self._size:
            raise CheckpointError(f"{whole} of {self._size} bytes can be read")
        lines = [encode(record) for record in Account(records).records()]
        text = b"".join(lines)
        beside = _beside(self._path)
        file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(file, text)
            os.fsync(file)
            failpoints.reach("journal.rename")
            os.replace(beside, self._path)
        except BaseException:
            os.close(file)
            beside.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self._size, self._is_placed = file, len(text), False
        self._lines = self._needed = len(lines)
        self._place()

    def _place(self) -> None:
        """Before a line is promised, a power cut must not bring back the file that was replaced."""
        if not self._is_placed:
            _sync_directory(self._path.parent)
            self._is_placed = True


def encode(record: Record) -> bytes:
    """A record as a line."""
    return msgspec.json.encode(record) + b"\n"


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


def _write_all(file: int, text: bytes) -> None:
    """A write of many megabytes may stop at any of them."""
    at = 0
    while at < len(text):
        at += os.pwrite(file, text[at:], at)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
