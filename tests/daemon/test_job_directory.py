"""The job's directory: one holder, named where there is one, and nothing deleted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ampd import failpoints
from ampd.control.lifeline import WORKER_OF
from ampd.errors import ConfigError, JobConflictError
from ampd.job_directory import JobDirectory
from tests.daemon.daemons import is_alive, until


def _take(path: Path, patience: float = 0.2, said: list[str] | None = None) -> JobDirectory:
    return JobDirectory.take(path, patience_seconds=patience, say=(said if said is not None else []).append)


def test_it_is_made_where_it_is_missing(home: Path) -> None:
    """With its parents, and locked."""
    taken = _take(home / "a" / "b")

    assert (home / "a" / "b" / "lock").exists()
    taken.close()


def test_giving_up_removes_what_was_made_and_nothing_else(home: Path) -> None:
    """A start that failed leaves no trace; a directory that was there stays."""
    _take(home / "a" / "b").abandon()
    assert not (home / "a").exists()

    (home / "kept").mkdir()
    _take(home / "kept").abandon()
    assert (home / "kept").is_dir()


def test_a_live_daemon_is_named(home: Path) -> None:
    """The second one is turned away with the pid of the first."""
    code = (
        "import sys, pathlib; from ampd.job_directory import JobDirectory;"
        f"JobDirectory.take(pathlib.Path({str(home)!r}), patience_seconds=1, say=print); print('taken', flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"taken\n"

        with pytest.raises(JobConflictError, match=f"the daemon with pid {holder.pid} has"):
            _take(home)


def _orphan(directory: JobDirectory) -> subprocess.Popen[bytes]:
    """A process that inherits the lock and sleeps, written down as the worker of a daemon that is gone."""
    worker = subprocess.Popen(["sleep", "600"], pass_fds=(directory.lock,), start_new_session=True)
    os.pwrite(directory.lock, b'{"daemon":4194304,"worker":%d}' % worker.pid, 0)
    return worker


def test_an_orphan_that_leaves_in_time_is_not_killed(home: Path) -> None:
    """It may be saving: the lock is taken when it is done."""
    first = _take(home)
    worker = _orphan(first)
    first.close()
    said: list[str] = []
    threading.Timer(0.2, worker.terminate).start()

    _take(home, patience=30.0, said=said).close()

    assert worker.wait() == -signal.SIGTERM
    assert not any("killing" in line for line in said)


def test_a_holder_that_is_just_going_is_waited_for(home: Path) -> None:
    """Between two looks it may be gone: that is no conflict."""
    for _ in range(20):
        first = _take(home)
        worker = _orphan(first)
        first.close()
        worker.kill()

        _take(home, patience=30.0).close()

        worker.wait()


def test_an_orphan_that_stays_is_killed_after_its_budget(home: Path) -> None:
    """And whoever starts the daemon is told both."""
    first = _take(home)
    worker = _orphan(first)
    first.close()
    said: list[str] = []

    _take(home, said=said).close()

    assert worker.wait() == -signal.SIGKILL
    assert f"worker {worker.pid}" in said[0]
    assert "killing it" in said[1]


def test_a_faster_daemon_is_named_at_once(home: Path) -> None:
    """Two wait for the same orphan, and the other gets the lock: it is told, long before patience is over."""
    first = _take(home)
    orphan = _orphan(first)
    first.close()
    rivals: list[subprocess.Popen[bytes]] = []
    code = (
        "import sys, pathlib; from ampd.job_directory import JobDirectory;"
        f"JobDirectory.take(pathlib.Path({str(home)!r}), patience_seconds=0, say=str); print('taken', flush=True);"
        "sys.stdin.read()"
    )

    def be_overtaken(_message: str) -> None:
        rivals.append(
            subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        assert rivals[0].stdout is not None
        assert rivals[0].stdout.readline() == b"taken\n"

    with pytest.raises(JobConflictError) as refused:
        JobDirectory.take(home, patience_seconds=3600, say=be_overtaken)

    rivals[0].communicate()
    orphan.wait()
    assert f"the daemon with pid {rivals[0].pid} has" in str(refused.value)


def test_a_worker_that_nobody_wrote_down_is_known(home: Path) -> None:
    """Its daemon was killed between starting it and noting it: its environment says whose it is."""
    first = _take(home)
    mark = os.environ | {WORKER_OF: str(home)}
    worker = subprocess.Popen(["sleep", "600"], pass_fds=(first.lock,), start_new_session=True, env=mark)
    os.pwrite(first.lock, b'{"daemon":4194304,"worker":null}', 0)
    first.close()

    _take(home).close()

    assert worker.wait() == -signal.SIGKILL


def test_what_a_dead_worker_started_is_ended_with_its_group(home: Path) -> None:
    """A data loader's process that outlived its worker has the lock, and nobody wrote its pid down."""
    first = _take(home)
    mark = os.environ | {WORKER_OF: str(home)}
    shell = "sleep 600 & echo $!"
    worker = subprocess.Popen(
        ["sh", "-c", shell], pass_fds=(first.lock,), start_new_session=True, env=mark, stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    loader = int(worker.stdout.readline())
    worker.stdout.close()
    worker.wait()
    first.close()
    assert is_alive(loader)

    _take(home).close()

    until("the end of the loader", lambda: not is_alive(loader))


def test_a_worker_of_another_job_is_not_ours(home: Path) -> None:
    """A daemon that was started from within a worker carries a mark of another directory."""
    first = _take(home)
    other = home / "other"
    other.mkdir()
    mark = os.environ | {WORKER_OF: str(other)}
    holder = subprocess.Popen(["sleep", "600"], pass_fds=(first.lock,), start_new_session=True, env=mark)
    first.close()

    with pytest.raises(JobConflictError, match=f"process {holder.pid} has"):
        _take(home)

    assert holder.poll() is None
    holder.kill()
    holder.wait()


def test_an_unknown_holder_is_never_killed(home: Path) -> None:
    """A pid in a file is no proof: who is not our worker is named, and left alone."""
    first = _take(home)
    worker = _orphan(first)
    os.pwrite(first.lock, b"{}" + b" " * 60, 0)
    first.close()

    with pytest.raises(JobConflictError, match=f"process {worker.pid} has"):
        _take(home)

    assert worker.poll() is None
    worker.kill()
    worker.wait()


def test_a_lock_of_the_dead_is_free(home: Path) -> None:
    """Whatever its file says: the kernel released it."""
    (home / "lock").write_text('{"daemon":1,"worker":1}')

    _take(home).close()


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("/proc/self/nowhere")])
def test_a_place_that_cannot_be_a_directory_is_refused(home: Path, make: object) -> None:
    """A ConfigError with the key, not a traceback."""
    assert callable(make)
    make(home / "file")

    with pytest.raises(ConfigError, match=r"job.directory = .*file' cannot be used") as caught:
        _take(home / "file")

    assert caught.value.field == "job.directory"


def test_setting_aside_moves_all_but_the_lock_and_the_old(home: Path) -> None:
    """Twice in a row gives two places."""
    taken = _take(home)
    for turn in range(2):
        (home / "journal.jsonl").write_text(str(turn))
        (home / "ckpt").mkdir()
        place = taken.set_aside(datetime(2026, 1, 2, 3, 4, turn, tzinfo=UTC))
        assert place == home / "old" / f"2026-01-02T03-04-0{turn}.000000Z"
        assert (place / "journal.jsonl").read_text() == str(turn)
        assert (place / "ckpt").is_dir()

    assert taken.set_aside(datetime.now(UTC)) is None
    assert {entry.name for entry in home.iterdir()} == {"lock", "old"}
    taken.close()


def test_nodes_that_follow_keep_their_directories(home: Path) -> None:
    """They are locked by daemons of their own, on machines that begin at the same moment."""
    with (
        contextlib.closing(_take(home)) as leads,
        contextlib.closing(_take(home / "nodes" / "gpu2")) as follows,
    ):
        (home / "losses.jsonl").touch()
        (follows.path / "worker.log").touch()

        assert leads.set_aside(datetime.now(UTC)) is not None

        assert sorted(path.name for path in home.iterdir()) == ["lock", "nodes", "old"]
        assert (follows.path / "worker.log").exists()


def test_the_file_says_who_has_it(home: Path) -> None:
    """For people, and for the next daemon; written whole each time."""
    taken = _take(home)
    taken.note_worker(123456)
    taken.note_worker(7)

    assert (home / "lock").read_text() == f'{{"daemon":{os.getpid()},"worker":7}}'
    taken.close()


def test_a_full_disk_takes_no_note_and_no_daemon_with_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock holds all the same, and a new daemon finds the worker by its environment."""
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse("lock.write=error:ENOSPC"))
    taken = _take(home)
    mark = os.environ | {WORKER_OF: str(home)}
    worker = subprocess.Popen(["sleep", "600"], pass_fds=(taken.lock,), start_new_session=True, env=mark)
    taken.note_worker(worker.pid)
    taken.close()

    said: list[str] = []
    _take(home, said=said).close()

    assert (home / "lock").read_bytes() == b""
    assert f"worker {worker.pid} of a daemon that is gone still has" in said[0]
    assert worker.wait() == -signal.SIGKILL


def test_patience_is_over_when_the_lock_is_free(home: Path) -> None:
    """The wait is for the lock, not for a time."""
    first = _take(home)
    worker = _orphan(first)
    first.close()
    worker.kill()
    worker.wait()

    second = _take(home, patience=600.0)

    until("the lock", lambda: (home / "lock").exists())
    second.close()
