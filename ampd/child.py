"""The worker's process: started, signalled, waited for, and the last lines that it wrote.

It is started from the daemon's main thread, because the parent-death signal that the worker asks for goes out when
the *thread* dies that started it. It has a session of its own, so that a terminal's Ctrl-C reaches the daemon alone,
and its process group can be killed whole. It inherits the lock of the job directory and no other open file of ours, and its environment says
whose it is from its first moment, which `note_worker` cannot.
What it prints goes to a file, not a pipe: a pipe would have to be read for as long as the worker lives, and would
kill it when the daemon dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ampd import failpoints
from ampd.control.lifeline import WORKER_OF
from ampd.core.group import DistributedSection
from ampd.core.view import JobView
from ampd.job_directory import JobDirectory

LOG = "worker.log"
LAST_LINES = 20
_TAIL_BYTES = 16384
_GROUP = (sys.executable, "-m", "ampd.group")
_ALONE = {"WORLD_SIZE": "1"}
"""A worker that has no others must not look for those that somebody else's launcher speaks of."""
_GPUS = Path("/proc/driver/nvidia/gpus")


class Process(Protocol):
    """A worker's process as the shell sees it."""

    pid: int

    async def wait(self) -> int:
        """Until it is gone: its exit code, or the negative number of the signal that ended it."""
        ...

    def kill(self, *, gently: bool) -> None:
        """End it."""
        ...

    def last_lines(self) -> tuple[str, ...]:
        """The end of what it printed."""
        ...


class Workers(Protocol):
    """Where workers come from: they are started, or one that is there already is adopted."""

    async def next(self, view: JobView, link: str, directory: JobDirectory) -> Process:
        """The process of a worker that will speak on `link`; raises OSError where it cannot be had."""
        ...


class Started:
    """Workers that are started by a command of their own: one process, or the agent of a group of them."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command

    async def next(self, view: JobView, link: str, directory: JobDirectory) -> Process:
        """Start one; raises OSError where its program cannot be run."""
        section = view.config.distributed
        processes = processes_of(section)
        if processes == 1 and section.nodes == 1:
            words = ["--link", link, "--rank", "0", *([] if view.place.leads else ["--follows"])]
            told = view.place.environment or _ALONE
            return await Child.start([*self._command, *words], directory, told)
        restarts = view.config.restart.max_restarts
        words = ["--link", link, "--processes", str(processes), "--max-restarts", str(restarts)]
        words += _meeting(view) if section.nodes > 1 else []
        return await Child.start([*_GROUP, *words], directory, has_ranks=True)


def _meeting(view: JobView) -> list[str]:
    """What torchrun has to know of the other nodes."""
    section, place = view.config.distributed, view.place
    words = ["--nodes", str(section.nodes), "--rendezvous", section.rendezvous, "--job", view.name]
    words += ["--address", place.address, "--interface", place.interface]
    return words if place.leads else [*words, "--follows"]


def processes_of(section: DistributedSection) -> int:
    """How many processes are ours to start; "auto" counts the GPUs that it may see, without loading torch."""
    if section.processes == "env":
        return 1
    if section.processes != "auto":
        return section.processes
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(_GPUS.glob("*")))
    return max(1, present if visible is None else min(present, len([n for n in visible.split(",") if n])))


class Child:
    """One worker's process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, begun: int) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log
        self._begun = begun  # where in the log this worker's own lines begin

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        directory: JobDirectory,
        more: Mapping[str, str] = {},
        *,
        has_ranks: bool = False,
    ) -> Child:
        """Start a worker, with `more` in its environment; raises OSError where its program cannot be run.

        torchrun closes what its ranks could inherit, except standard streams: there the lock is their input.
        """
        log = directory.path / LOG
        with log.open("ab") as output:
            with contextlib.suppress(OSError):  # a full disk must not keep a worker from being started
                os.write(
                    output.fileno(), f"--- worker started {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode()
                )
            begun = os.fstat(output.fileno()).st_size
            process = await asyncio.create_subprocess_exec(
                *command, stdin=directory.lock if has_ranks else asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                pass_fds=(directory.lock,), env={**os.environ, **more, WORKER_OF: str(directory.path)},
            )  # fmt: skip
        failpoints.reach("start.spawned")
        directory.note_worker(process.pid)
        return cls(process, log, begun)

    async def wait(self) -> int:
        """Until it is gone: its exit code, or the negative number of the signal that ended it."""
        return await self._process.wait()

    def kill(self, *, gently: bool) -> None:
        """End it: SIGTERM to the worker, or SIGKILL to all that it started (ranks die with their agent)."""
        with contextlib.suppress(ProcessLookupError):
            if gently:
                os.kill(self.pid, signal.SIGTERM)
            else:
                os.killpg(self.pid, signal.SIGKILL)

    def last_lines(self) -> tuple[str, ...]:
        """The end of what this worker printed."""
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._begun, size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return tuple(lines[-LAST_LINES:])
