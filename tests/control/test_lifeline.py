"""The pulse between two processes, the stacks signal whoever holds the interpreter, and what neither may do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ampd.control.endpoints import PULSE
from ampd.control.lifeline import STACKS, STACKS_SIGNAL, WORKER_OF, PulsePage
from ampd.core.phase import Phase, Pulse
from ampd.errors import LinkError
from tests.daemon.daemons import until


@pytest.fixture
def page(directory: Path) -> Iterator[PulsePage]:
    """The supervisor's side."""
    directory.mkdir()
    made = PulsePage.make(directory)
    yield made
    made.close()


def _worker(directory: Path) -> PulsePage:
    return PulsePage.open(f"ipc://{directory / 'link.sock'}")


def test_a_declaration_is_seen_at_once(page: PulsePage, directory: Path) -> None:
    """The phase, and that it is news."""
    worker = _worker(directory)
    assert page.read() == Pulse(Phase.INIT, 0)

    for beats, phase in enumerate(Phase, start=1):
        worker.declare(phase)
        assert page.read() == Pulse(phase, beats)

    worker.close()


def test_a_new_worker_begins_anew(page: PulsePage, directory: Path) -> None:
    """The last words of the one before must not pass for its own."""
    worker = _worker(directory)
    worker.declare(Phase.WINDOW)

    page.clear()

    assert page.read() == Pulse()
    worker.close()


def test_the_worker_of_a_dead_daemon_writes_elsewhere(page: PulsePage, directory: Path) -> None:
    """It maps the file of its own daemon, which is another one by now."""
    orphan = _worker(directory)
    with_new_daemon = PulsePage.make(directory)

    orphan.declare(Phase.WINDOW)

    assert with_new_daemon.read() == Pulse()
    orphan.close()
    with_new_daemon.close()


def test_only_the_owner_may_touch_it(page: PulsePage, directory: Path) -> None:
    """Who could write it could hide a hang."""
    assert (directory / PULSE).stat().st_mode & 0o777 == 0o600


def test_it_takes_its_memory_at_once(page: PulsePage, directory: Path) -> None:
    """A hole in the file would be a SIGBUS in the step loop when the disk is full."""
    assert (directory / PULSE).stat().st_blocks > 0


def test_a_missing_page_is_named(directory: Path) -> None:
    """A worker without a pulse would be taken for one that hangs."""
    with pytest.raises(LinkError, match="pulse cannot be opened: No such file"):
        _worker(directory)


SUBJECT = """
import ctypes, os, sys, time
from ampd.control.lifeline import answer_stacks_signal
answer_stacks_signal(os.environ)
def innermost():
    print("hangs", flush=True)
    {body}
innermost()
"""
BODIES = {
    "python loop": "while True: pass",
    "interpreter held": "while True: ctypes.PyDLL(None).sleep(600)",  # the signal ends one
    "asleep": "time.sleep(600)",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
def test_stacks_come_whoever_holds_the_interpreter(tmp_path: Path, body: str) -> None:
    """Appended to the job's file, with the Python frame that hangs, and the process lives on."""
    (tmp_path / STACKS).write_text("earlier\n")
    with subprocess.Popen(
        [sys.executable, "-c", SUBJECT.format(body=body)],
        env=os.environ | {WORKER_OF: str(tmp_path)}, stdout=subprocess.PIPE,
    ) as subject:  # fmt: skip
        assert subject.stdout is not None
        assert subject.stdout.readline() == b"hangs\n"

        subject.send_signal(STACKS_SIGNAL)

        until("the stacks", lambda: "in innermost" in (tmp_path / STACKS).read_text())
        assert (tmp_path / STACKS).read_text().startswith("earlier\n")
        assert subject.poll() is None
        subject.kill()


def test_a_crash_leaves_its_stacks_in_the_log(tmp_path: Path) -> None:
    """A segmentation fault in a kernel says which line it came from."""
    code = SUBJECT.format(body="os.kill(os.getpid(), 11)")

    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {WORKER_OF: str(tmp_path)}, capture_output=True, check=False
    )  # fmt: skip

    assert done.returncode == -signal.SIGSEGV
    assert b"in innermost" in done.stderr


def test_ranks_have_words_of_their_own(page: PulsePage, directory: Path) -> None:
    """Each is read by itself, up to the first that has said nothing yet."""
    ranks = [PulsePage.open(f"ipc://{directory / 'link.sock'}", rank) for rank in range(3)]
    ranks[0].declare(Phase.WINDOW)
    ranks[2].declare(Phase.INIT)
    assert page.read_peers() == ()

    ranks[1].declare(Phase.PAUSED)

    assert page.read() == Pulse(Phase.WINDOW, 1)
    assert page.read_peers() == (Pulse(Phase.PAUSED, 1), Pulse(Phase.INIT, 1))
    page.clear()
    assert page.read_peers() == ()
    for rank in ranks:
        rank.close()


def test_whoever_waits_for_others_says_so(page: PulsePage, directory: Path) -> None:
    """No new beat: that comes with the next declaration, which also ends the waiting."""
    worker = _worker(directory)
    worker.declare(Phase.WINDOW)
    seen = []

    for is_waiting in (True, False, True):
        worker.wait(is_waiting)
        seen.append(page.read())
    worker.declare(Phase.WINDOW)

    assert seen == [Pulse(Phase.WINDOW, 1, is_waiting) for is_waiting in (True, False, True)]
    assert page.read() == Pulse(Phase.WINDOW, 2)
    worker.close()


def test_a_rank_that_withdraws_has_left(page: PulsePage, directory: Path) -> None:
    """Before it has begun it is not to be missed either."""
    worker = _worker(directory)
    seen = [page.has_left(0)]
    worker.declare(Phase.WINDOW)
    seen.append(page.has_left(0))

    worker.withdraw()

    assert [*seen, page.has_left(0)] == [True, False, True]
    worker.close()
