"""Stacks of real processes: those that answer, and those that cannot."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ampd import stacks
from ampd.control.lifeline import STACKS, WORKER_OF
from tests.daemon.daemons import until

CODE = (
    "import os, time; from ampd.control.lifeline import answer_stacks_signal; answer_stacks_signal(os.environ);"
    "print('ready', flush=True); time.sleep(600)"
)


@pytest.fixture
def subject(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that registered for stacks."""
    with subprocess.Popen(
        [sys.executable, "-c", CODE], env=os.environ | {WORKER_OF: str(home)}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def _saved(home: Path, *pids: int) -> stacks.Stacks:
    return asyncio.run(stacks.save(home, pids))


def test_they_are_in_a_file_with_whose_and_when(home: Path, subject: subprocess.Popen[bytes]) -> None:
    """Several hangs of a job are told apart."""
    saved = _saved(home, subject.pid)

    assert saved == stacks.Stacks(str(home / STACKS))
    head, *lines = (home / STACKS).read_text().splitlines()
    assert head.startswith(f"--- stacks of {subject.pid} at 20")
    assert any("most recent call first" in line for line in lines)


def test_a_stopped_process_is_said_to_be(home: Path, subject: subprocess.Popen[bytes]) -> None:
    """It handles no signal, and that is the finding."""
    subject.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{subject.pid}/stat")
    until("its stop", lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    saved = _saved(home, subject.pid)

    assert saved.path == ""
    assert saved.note == f"no stacks: process {subject.pid} is stopped (SIGSTOP, or a debugger)"


def test_one_of_two_is_enough(home: Path, subject: subprocess.Popen[bytes]) -> None:
    """A rank that is gone does not hide the stacks of the others."""
    gone = subprocess.Popen(["true"])
    gone.wait()

    assert _saved(home, gone.pid, subject.pid).path == str(home / STACKS)


def test_nobody_to_ask_and_nowhere_to_write_are_said(home: Path) -> None:
    """A worker that never spoke; a directory that is gone."""
    assert _saved(home).note == "no stacks: the worker has not spoken yet"
    assert "cannot be written: No such file" in _saved(home / "nowhere", os.getpid()).note
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert "is gone already" in _saved(home, gone.pid).note
