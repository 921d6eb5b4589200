"""The directory of a job belongs to one daemon and its workers, or to nobody: a lock that dies with its holders.

`flock` on a file in the directory, held through one open file that the worker inherits: the kernel releases it when
the last process that has it is gone, so a killed daemon leaves nothing to clean up, and a worker that outlived its
daemon and still saves keeps a second writer out. Pids in the file only say who is who; whether they hold the lock is
read off /proc, because a pid alone may belong to anybody by now. A worker that nobody has written down, since its
daemon was killed in that very moment or had a full disk, is known by its environment, and so is a process of its own
that outlived it.

`--fresh` moves what is there aside, never deletes. A node that follows has a directory of its own inside that of the job, with
a lock of its own, for its logs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ampd import failpoints
from ampd.control.lifeline import WORKER_OF
from ampd.errors import ConfigError, JobConflictError

LOCK = "lock"
OLD = "old"
NODES = "nodes"
_MARK = WORKER_OF.encode() + b"="
_POLL_SECONDS = 0.05
_VANISH_SECONDS = 0.5
"""A process that exits shows no open files any more for a moment before it lets go of them."""
_DEATH_SECONDS = 10.0
"""A killed process is gone in milliseconds, unless it hangs in the kernel (a dead disk)."""


class Holders(msgspec.Struct, frozen=True):
    """Who took the lock, as they wrote it down."""

    daemon: int
    worker: int | None = None


class JobDirectory:
    """A locked job directory, from `take` to `close`."""

    def __init__(self, path: Path, lock: int, made: tuple[Path, ...]) -> None:
        self.path = path
        self.lock = lock
        """An open file of the lock: a process that inherits it holds the directory too."""
        self._made = made

    @classmethod
    def take(cls, path: Path, *, patience_seconds: float, say: Callable[[str], None]) -> JobDirectory:
        """Lock the directory, making it where it is missing.

        Raises JobConflictError where another daemon has it, ConfigError where it cannot be used. Waits
        `patience_seconds` for a worker whose daemon is gone, then kills it; `say` is told.
        """
        made = tuple(place for place in (path, *path.parents) if not place.exists())
        lock = _open(path)
        try:
            if not _try(lock):
                _wait_for_orphan(path, lock, patience_seconds, say)
        except BaseException:
            os.close(lock)
            raise
        taken = cls(path, lock, made)
        taken.note_worker(None)
        return taken

    def note_worker(self, pid: int | None) -> None:
        """Write down who has the lock now, where the disk takes it: who holds it is found out without, too."""
        line = msgspec.json.encode(Holders(os.getpid(), pid))
        with contextlib.suppress(OSError):
            failpoints.reach("lock.write")
            os.pwrite(self.lock, line, 0)
            os.ftruncate(self.lock, len(line))

    def set_aside(self, now: datetime) -> Path | None:
        """Move all that earlier runs left into `old/<UTC time>/`; None where there was nothing."""
        left = [entry for entry in self.path.iterdir() if entry.name not in (LOCK, OLD, NODES)]
        if not left:
            return None
        place = self.path / OLD / now.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ")
        place.mkdir(parents=True)
        for entry in left:
            entry.rename(place / entry.name)
        return place

    def abandon(self) -> None:
        """Give the directory up before anything began: what `take` made is removed, what was there stays."""
        if self.path in self._made:
            (self.path / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody else has put something there meanwhile
            for place in self._made:
                place.rmdir()
        self.close()

    def close(self) -> None:
        """Let go; a worker that inherited the lock keeps it. May be called twice."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def _open(path: Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True)
        return os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"job.directory = {str(path)!r} cannot be used: {error.strerror}",
            field="job.directory",
            hint="name a directory that this user may write to",
        ) from None


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for_orphan(path: Path, lock: int, patience_seconds: float, say: Callable[[str], None]) -> None:
    """Get the lock from a worker without a daemon; raises JobConflictError where somebody else has it."""
    if _within(_VANISH_SECONDS, lambda: _try(lock) or any(_holding(lock))) and _try(lock):
        return  # whoever had it went just now
    worker = _orphan(path, lock)
    if worker is None:
        return
    say(
        f"worker {worker} of a daemon that is gone still has {path}, and may be saving: "
        f"waiting up to {patience_seconds:g} s for it"
    )
    if not _within(patience_seconds, lambda: _try(lock) or worker not in _holding(lock)):
        say(
            f"worker {worker} has not left within restart.save_budget_seconds = {patience_seconds:g}: killing it"
        )
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(worker), signal.SIGKILL)
        _within(_DEATH_SECONDS, lambda: _try(lock) or worker not in _holding(lock))
    if _within(_DEATH_SECONDS, lambda: _try(lock) or _has_living_daemon(lock)) and _try(lock):
        return
    if _orphan(path, lock) is None:  # another daemon that waited for the same worker was faster, and is named
        return
    raise JobConflictError(
        f"{path} is still locked after worker {worker} was killed; `fuser {path / LOCK}` shows who has it"
    )


def _has_living_daemon(lock: int) -> bool:
    written = _written(lock)
    return written is not None and written.daemon in _holding(lock)


def _orphan(path: Path, lock: int) -> int | None:
    """The worker that holds the lock; None where its last holder went just now, and the lock is ours.

    Raises JobConflictError where its daemon lives, or who it is is not known after a moment: a worker that was just
    started still shows the environment of its daemon, and a daemon may not have written itself down yet.
    """
    workers: list[int] = []

    def is_known() -> bool:
        workers[:] = _workers(path, lock)
        return bool(workers) or _has_living_daemon(lock) or _try(lock)

    is_ours = _within(_VANISH_SECONDS, is_known) and not workers and not _has_living_daemon(lock)
    if is_ours:
        return None
    written, holding = _written(lock), set(_holding(lock))
    if written is not None and written.daemon in holding:
        raise JobConflictError(
            f"the daemon with pid {written.daemon} has {path}; end it with `ampctl stop` first"
        )
    if workers:
        return workers[0]
    who = f"process {min(holding)}" if holding else "another user's process"
    raise JobConflictError(f"{who} has {path}; `fuser {path / LOCK}` shows it")


def _workers(path: Path, lock: int) -> list[int]:
    """Holders of the lock that were written down as its worker, or whose environment says that they are of one."""
    written = _written(lock)
    known = written.worker if written is not None else None
    return sorted(pid for pid in _holding(lock) if pid == known or _is_marked(pid, path))


def _is_marked(pid: int, path: Path) -> bool:
    """Whether a process was started for a worker of this directory."""
    try:
        words = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
        marks = [os.fsdecode(word.removeprefix(_MARK)) for word in words if word.startswith(_MARK)]
        return any(os.path.samefile(mark, path) for mark in marks)
    except OSError:
        return False  # gone meanwhile, or not ours to look at


def _written(lock: int) -> Holders | None:
    try:
        return msgspec.json.decode(os.pread(lock, 4096, 0), type=Holders)
    except msgspec.DecodeError:
        return None


def _holding(lock: int) -> Iterator[int]:
    """Other processes, of those we may look at, that have the file open."""
    ours = os.fstat(lock)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to look at
            if int(process.name) != os.getpid() and any(
                _is_same(fd, ours) for fd in (process / "fd").iterdir()
            ):
                yield int(process.name)


def _is_same(fd: Path, ours: os.stat_result) -> bool:
    try:
        return os.path.samestat(fd.stat(), ours)
    except OSError:
        return False


def _within(seconds: float, is_done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
