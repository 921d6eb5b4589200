"""The worker's process: its own session, the job's lock, its output, its death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ampd.child import LAST_LINES, Child
from ampd.job_directory import JobDirectory
from tests.daemon.daemons import is_alive, until


def _with_child(home: Path, code: str, body: Callable[[Child, JobDirectory], Awaitable[None]]) -> None:
    """Run `body` with a child that runs `code`."""

    async def run() -> None:
        directory = JobDirectory.take(home, patience_seconds=1.0, say=print)
        child = await Child.start([sys.executable, "-c", code], directory)
        await body(child, directory)
        directory.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("code", "returncode"), [("", 0), ("raise SystemExit(3)", 3), ("import os; os.abort()", -6)]
)
def test_its_exit_is_told_as_it_was(home: Path, code: str, returncode: int) -> None:
    """An exit code, or the negative number of a signal."""

    async def body(child: Child, _directory: JobDirectory) -> None:
        assert await child.wait() == returncode

    _with_child(home, code, body)


def test_the_last_lines_are_its_own(home: Path) -> None:
    """Not those of the worker before it, and no more than are of use; bytes that are no text do no harm."""
    (home / "worker.log").write_bytes(b"an old line\n")
    code = "import sys\nfor i in range(50): print(i)\nsys.stdout.flush(); sys.stdout.buffer.write(b'\\xff')"

    async def body(child: Child, _directory: JobDirectory) -> None:
        await child.wait()
        assert child.last_lines() == (*(str(i) for i in range(51 - LAST_LINES, 50)), "\ufffd")

    _with_child(home, code, body)


def test_the_log_keeps_earlier_workers(home: Path) -> None:
    """Appended, with a header for each start."""
    for _ in range(2):

        async def body(child: Child, _directory: JobDirectory) -> None:
            await child.wait()

        _with_child(home, "print('hello')", body)

    lines = (home / "worker.log").read_text().splitlines()
    assert [line.startswith("--- worker started 20") for line in lines] == [True, False, True, False]


def _open_files(pid: int) -> list[Path]:
    """What a process has open; one that starts opens and closes files all the while."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(entry.readlink())
    return found


def test_it_leads_a_session_and_holds_the_lock(home: Path) -> None:
    """A terminal's Ctrl-C does not reach it; a second daemon finds the directory taken while it lives."""

    async def body(child: Child, directory: JobDirectory) -> None:
        assert os.getsid(child.pid) == child.pid
        until("the lock among its files", lambda: directory.path / "lock" in _open_files(child.pid))
        assert f'"worker":{child.pid}' in (home / "lock").read_text()
        child.kill(gently=False)
        await child.wait()

    _with_child(home, "import time; time.sleep(600)", body)


def test_a_gentle_end_is_sigterm(home: Path) -> None:
    """The worker may say goodbye."""

    async def body(child: Child, _directory: JobDirectory) -> None:
        child.kill(gently=True)
        assert await child.wait() == -signal.SIGTERM

    _with_child(home, "import time; time.sleep(600)", body)


def test_a_hard_end_takes_its_children_along(home: Path) -> None:
    """A data loader's processes must not keep the device or the lock."""
    code = (
        "import subprocess, time; p = subprocess.Popen(['sleep', '600'], close_fds=False);"
        f"open({str(home / 'pid')!r}, 'w').write(f'{{p.pid}} '); time.sleep(600)"
    )

    async def body(child: Child, _directory: JobDirectory) -> None:
        note = home / "pid"
        until("the grandchild", lambda: note.exists() and note.read_text().endswith(" "))
        child.kill(gently=False)
        await child.wait()
        until("its end", lambda: not is_alive(int(note.read_text())))

    _with_child(home, code, body)


def test_killing_what_is_gone_is_no_error(home: Path) -> None:
    """Its exit and our order may cross."""

    async def body(child: Child, _directory: JobDirectory) -> None:
        await child.wait()
        child.kill(gently=True)
        child.kill(gently=False)

    _with_child(home, "", body)


def test_a_missing_program_raises(home: Path) -> None:
    """The shell turns it into a reason in words."""

    async def run() -> None:
        directory = JobDirectory.take(home, patience_seconds=1.0, say=print)
        with pytest.raises(FileNotFoundError):
            await Child.start(["/nowhere/python"], directory)
        directory.close()

    asyncio.run(run())
