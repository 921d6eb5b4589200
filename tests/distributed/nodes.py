"""Nodes of one job, each with a daemon of its own: on one machine, by number, where nothing tells them apart otherwise."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ampd.core import protocol as p
from ampd.errors import CommandError
from tests.daemon.daemons import Daemon, is_worker_of
from tests.story.jobs import DigitsJob

PATIENCE_SECONDS = 150.0
"""For two torchruns and their ranks to load torch and to meet, on a machine that has better things to do."""


class Nodes:
    """A job of the digits on `count` nodes, which share its directory and have everything else for themselves."""

    def __init__(self, home: Path, count: int, windows: int) -> None:
        self.rendezvous = f"127.0.0.1:{free_port()}"
        self.jobs = [_node(home, number, windows) for number in range(count)]
        self.directory = self.jobs[0].directory
        self.write()

    def write(self, **sections: str) -> None:
        """The job file of each node, with some sections replaced."""
        for number, job in enumerate(self.jobs):
            met = f'nodes = {len(self.jobs)}\nrendezvous = "{self.rendezvous}"\nnode = {number}'
            job.write(**{"distributed": met, "checkpoint": "every_windows = 20"} | sections)

    def start(self) -> list[Daemon]:
        """A daemon on each node; the first leads."""
        return [job.start() for job in self.jobs]

    @property
    def losses(self) -> str:
        """The whole loss log."""
        return self.jobs[0].losses


def _node(home: Path, number: int, windows: int) -> DigitsJob:
    (home / str(number)).mkdir()
    job = DigitsJob(home / str(number), windows)
    job.directory = home / "run"
    return job


@contextmanager
def nodes(count: int = 2, *, windows: int) -> Iterator[Nodes]:
    """Nodes in a short directory; no process is left behind."""
    with TemporaryDirectory(prefix="ampd-") as home:
        made = Nodes(Path(home), count, windows)
        try:
            yield made
        finally:
            for job in made.jobs:
                job.clean()
                _end_workers(job, made.directory)


def _end_workers(job: DigitsJob, directory: Path) -> None:
    """Torchruns that outlived their daemon, whichever node they are of."""
    locked = [directory, *(directory / "nodes").glob("*")]
    for started in (started for daemon in job.daemons for started in daemon.said("worker.started")):
        if any(is_worker_of(started["pid"], each) for each in locked):
            with contextlib.suppress(ProcessLookupError):  # it went just now
                os.killpg(started["pid"], signal.SIGKILL)


def free_port() -> int:
    """A port that nobody has now, and that no connection is given."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def all_are_ready(daemons: list[Daemon], count: int = 1) -> None:
    """Wait until the ranks of every node have been ready so many times."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(len(daemon.said("worker.became_ready")) < count for daemon in daemons):
        for daemon in daemons:
            assert daemon.process.poll() is None, daemon.err.read_text()
        assert time.monotonic() < deadline, "\n".join(daemon.err.read_text() for daemon in daemons)
        time.sleep(0.02)


def all_end(daemons: list[Daemon]) -> list[int]:
    """Their exit codes."""
    return [daemon.ends(PATIENCE_SECONDS) for daemon in daemons]


def refusal_of(daemon: Daemon, command: p.AnyCommand) -> CommandError:
    """Why a command is refused."""
    try:
        answered = daemon.ask(command)
    except CommandError as error:
        return error
    raise AssertionError(f"{command} was taken: {answered}")


def rank_of(daemon: Daemon) -> int:
    """The pid of a node's first rank, as it was last told."""
    return int(daemon.said("worker.spoke")[-1]["pid"])
