"""The stacks of a worker that hangs, asked for from outside and appended to the job's `stacks.log`.

The worker's C-level handler (`control.lifeline`) writes them in milliseconds, whoever holds the interpreter. A process
that is stopped, or that waits inside the kernel, handles no signal; that is found out from /proc and said, since it
is what there is to know about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ampd.control.lifeline import STACKS, STACKS_SIGNAL

MOST_SECONDS = 0.4
"""A hang is told within a second of its budget, stacks included."""
_LOOK_SECONDS = 0.02
_STATES = {
    "T": "is stopped (SIGSTOP, or a debugger)",
    "t": "is held by a debugger",
    "D": "waits inside the kernel, for a disk or a device",
    "Z": "is gone already",
}


class Stacks(msgspec.Struct, frozen=True):
    """Where they are; an empty path, with the reason as a note, where there are none."""

    path: str
    note: str = ""


async def save(directory: Path, pids: Sequence[int]) -> Stacks:
    """Have processes that registered for it write their stacks."""
    if not pids:
        return Stacks("", "no stacks: the worker has not spoken yet")
    path = directory / STACKS
    try:
        begun = _head(path, pids)
    except OSError as error:
        return Stacks("", f"no stacks: {path} cannot be written: {error.strerror}")
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, STACKS_SIGNAL)
    if not await _is_written(path, begun):
        return Stacks("", _excuse(pids))
    mute = [pid for pid in pids if _state(pid) in _STATES]  # others of its group have answered
    return Stacks(str(path), f"no stacks of some: {_said(mute)}" if mute else "")


def _head(path: Path, pids: Sequence[int]) -> int:
    """Begin a new paragraph of the file; returns where it ends."""
    who = ", ".join(map(str, pids))
    with path.open("ab") as file:
        file.write(f"--- stacks of {who} at {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode())
        return file.tell()


async def _is_written(path: Path, begun: int) -> bool:
    """Wait until the file has grown and is quiet, or the time is up; whether it has grown."""
    deadline, size = time.monotonic() + MOST_SECONDS, begun
    while time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_SECONDS)
        last, size = size, path.stat().st_size
        if begun < size == last:
            return True
    return size > begun


def _excuse(pids: Sequence[int]) -> str:
    return f"no stacks: {_said(pids)}"


def _said(pids: Sequence[int]) -> str:
    return "; ".join(f"process {pid} {_STATES.get(_state(pid), 'did not answer')}" for pid in pids)


def _state(pid: int) -> str:
    """The kernel's letter for what a process does; Z for one that is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
