"""What was asked of a job and what became of it, so that a change survives any crash and happens once.

One line of JSON for each record. A request that changes the run is `accepted` before it is sent to the worker, and
`applied` or `refused` before its reply is sent: whatever a client was told is on disk. After a crash the file says
what to do again at which window, what was promised and not yet done, and what to answer to somebody who asks again
with the same id.

A record is durable once what `append` returns is done: written and fsynced, by one thread, in the order of the calls (the event
loop never waits for a disk). Those that come while the disk is busy share its next fsync. So one record waits for
nothing but its own fsync, a crowd does not wait for one each, and there is no interval to choose; what either is
promised is the same. To compact is that thread's work too, between two fsyncs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from ampd.control.journal_file import SLACK, JournalFile, encode
from ampd.control.records import Account, Record


class _Waiting(msgspec.Struct, frozen=True):
    """A record on its way to the disk."""

    record: Record
    line: bytes
    durable: asyncio.Future[None]


class Journal:
    """The journal of one job, from `open` to `close`; its methods are for the event loop's thread."""

    def __init__(self, file: JournalFile, account: Account) -> None:
        self.account = account
        """What the journal says: all that is durable, and nothing else."""
        self._file = file
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._waiting: list[_Waiting] = []
        self._is_busy = False

    @classmethod
    def open(cls, path: Path, slack: int = SLACK) -> Journal:
        """Read the journal, or begin one; raises CheckpointError where a line other than the last is damaged."""
        return cls(*JournalFile.open(path, slack))

    def append(self, record: Record) -> asyncio.Future[None]:
        """Make a record durable, also where nobody waits for that any more.

        The future has a CheckpointError where the disk refuses it, and then nothing was recorded.
        """
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(record, encode(record), durable))
        self._write_next()
        return durable

    def close(self) -> None:
        """Finish what is being written; may be called twice."""
        self._writer.shutdown()
        self._file.close()

    def _write_next(self) -> None:
        if self._is_busy or not self._waiting:
            return
        batch, self._waiting, self._is_busy = self._waiting, [], True
        lines = [waiting.line for waiting in batch]
        written = asyncio.get_running_loop().run_in_executor(self._writer, self._file.append, lines)
        written.add_done_callback(partial(self._settle, batch))

    def _settle(self, batch: Sequence[_Waiting], written: asyncio.Future[None]) -> None:
        self._is_busy = False
        error = None if written.cancelled() else written.exception()
        for waiting in batch if not written.cancelled() else ():
            if error is None:
                self.account.enter(waiting.record)
            if not waiting.durable.cancelled():
                _settle(waiting.durable, error)
        if self._file.is_bloated:
            asyncio.get_running_loop().run_in_executor(self._writer, self._file.compact)
        self._write_next()


def _settle(durable: asyncio.Future[None], error: BaseException | None) -> None:
    if error is not None:
        durable.set_exception(error)
    else:
        durable.set_result(None)
