"""Whatever a killed daemon leaves behind, the next start needs no hand: it runs, and no process of the old one does."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ampd.failpoints import VARIABLE
from tests.daemon.daemons import Daemon, Job, is_alive, until


def _runtime(job: Job) -> Path:
    runtime = job.home / "rt" / "toy"
    runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
    return runtime


def _stale_sockets(job: Job) -> None:
    for name in ("control.sock", "events.sock", "link.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(_runtime(job) / name))


def _stale_pulse(job: Job) -> None:
    (_runtime(job) / "pulse").write_bytes(b"\xff" * 100)


def _lock_that_names_a_stranger(job: Job) -> None:
    """The pids were given to other processes since: this very one."""
    job.directory.mkdir()
    (job.directory / "lock").write_text(f'{{"daemon":{os.getpid()},"worker":{os.getppid()}}}')


def _lock_that_is_garbage(job: Job) -> None:
    job.directory.mkdir()
    (job.directory / "lock").write_bytes(b"\x00\xffnot json")


def _half_a_journal_line(job: Job) -> None:
    job.directory.mkdir()
    (job.directory / "journal.jsonl").write_text('{"record":"accepted","ti')


def _half_a_compacted_journal(job: Job) -> None:
    job.directory.mkdir()
    (job.directory / "journal.jsonl.new").write_text('{"record":"acc')


def _half_a_checkpoint(job: Job) -> None:
    half = job.directory / "checkpoints" / ".window-00000010-0000.tmp-77"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"\x08")


LEFT: dict[str, Callable[[Job], None]] = {
    "stale sockets": _stale_sockets,
    "a stale pulse": _stale_pulse,
    "a lock that names a stranger": _lock_that_names_a_stranger,
    "a lock that is garbage": _lock_that_is_garbage,
    "half a line of the journal": _half_a_journal_line,
    "half a compacted journal": _half_a_compacted_journal,
    "half a checkpoint": _half_a_checkpoint,
}


@pytest.mark.parametrize("leave", LEFT.values(), ids=list(LEFT))
def test_what_lies_about_stops_no_start(job: Job, leave: Callable[[Job], None]) -> None:
    """Stale files of every kind."""
    leave(job)

    daemon = job.start(windows=3)

    assert daemon.ends() == 0, daemon.err.read_text()


KILLED_AT = ("start.locked", "start.bound", "start.spawned", "link.order")


def _killed_at(job: Job, point: str) -> Daemon:
    job.environment[VARIABLE] = f"{point}=kill"
    first = job.start()
    assert first.ends() == -signal.SIGKILL
    del job.environment[VARIABLE]
    return first


def _workers(job: Job) -> Iterator[int]:
    """Processes that have the job's lock open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(fd.readlink() == job.directory / "lock" for fd in (process / "fd").iterdir()):
                yield int(process.name)
        except OSError:
            continue


@pytest.mark.parametrize("point", KILLED_AT)
def test_a_daemon_killed_while_it_starts_leaves_nothing_in_the_way(job: Job, point: str) -> None:
    """A worker that nobody wrote down, or that never got an order, is waited out, killed and replaced."""
    job.write_for_kills()
    _killed_at(job, point)
    orphans = list(_workers(job))
    assert bool(orphans) == (point in ("start.spawned", "link.order"))

    second = job.start()
    second.runs()

    until("the end of the orphans", lambda: not any(is_alive(pid) for pid in orphans))
    assert second.status()["state"] == "running"


def test_a_failpoint_that_does_not_exist_starts_nothing(job: Job) -> None:
    """Exit 2 with the list, and the directory is not made."""
    job.environment[VARIABLE] = "checkpoint.renam=kill"

    daemon = job.start()

    assert daemon.ends() == 2
    assert "there is no failpoint 'checkpoint.renam'" in daemon.err.read_text()
    assert "hint: failpoints: start.locked" in daemon.err.read_text()
    assert not job.directory.exists()
