"""One daemon for a long while, with commands, scrapes, reloads and killed workers at random: it does not grow.

Once a second it is looked at from outside: memory, open files, threads, children that nobody has waited for. In the end
open files and threads are as many as after the first quarter, no dead child is left, and memory grew by no more than
what is kept (the last events, and revisions for good, each a line of the journal too) can explain. The worker is a fake,
so that in an hour the daemon meets more deaths, reports and windows than a real job gives it in weeks.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ampd.control.client import Client
from ampd.core import protocol as p
from ampd.errors import CommandError
from tests.campaigns.kills import kill_worker
from tests.daemon.daemons import Daemon, Job, until

NAME = "soak"
SECONDS = 12
_BETWEEN_SECONDS = 0.03
_PATIENCE_SECONDS = 60.0
_MOST_GROWTH_MIB = 16.0
"""Most of it are the ten thousand events that are kept for followers; the rest, pages that are drawn for the first time."""
_REVISION_MIB = 0.01
_LEAST_LOOKS = 8  # two for each quarter
_LOST = {"TIMED_OUT", "BUSY"}
_PAGES = ("/metrics", "/metrics", "/", "/events", "/healthz", "/readyz")


class Look(NamedTuple):
    """The daemon from outside, `at` so many seconds after the start; `memory` is in MiB."""

    at: float
    memory: float
    files: int
    threads: int


def look(pid: int, begin: float) -> Look:
    """As it is now."""
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    memory, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
    return Look(time.monotonic() - begin, memory, len(os.listdir(f"/proc/{pid}/fd")), threads)


def case(seed: int, seconds: int = SECONDS) -> None:
    """Keep it busy for so many seconds; says what was asked and what it cost."""
    draw, begin = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ampd-") as home:
        job = Job(Path(home))
        job.write(
            job=f'name = "toy"\ndirectory = "{job.directory}"\nwindows = 100000000',
            restart="backoff_seconds = 0.0\nmax_restarts = 1000000000",
        )  # fmt: skip
        try:
            daemon = job.start(worker="--window-seconds 0.002")
            daemon.runs(patience=_PATIENCE_SECONDS)
            load, looks = Load(job, daemon, draw), [look(daemon.pid, begin)]
            while time.monotonic() - begin < seconds or len(looks) < _LEAST_LOOKS:
                load.one()
                if time.monotonic() - begin > looks[-1].at + 1:
                    looks.append(look(daemon.pid, begin))
            revisions = daemon.status()["revision"]
            _judge(looks, revisions)
            until("no dead child is left", lambda: not _zombies(daemon.pid))
            daemon.ask(p.Stop(save=False))
            assert daemon.ends(_PATIENCE_SECONDS) == 0, daemon.err.read_text()
        finally:
            job.clean()
    print(f"{NAME}: {_summary(looks)}; {revisions} revisions, {dict(load.done)}")


class Load:
    """Whatever may come over a daemon, one thing after the other."""

    def __init__(self, job: Job, daemon: Daemon, draw: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._job, self._daemon, self._draw = job, daemon, draw
        self._client = Client(f"ipc://{job.home / 'rt' / 'toy' / 'control.sock'}")
        self._http = daemon.status()["http"]

    def one(self) -> None:
        """The next thing, after a while."""
        time.sleep(self._draw.expovariate(1 / _BETWEEN_SECONDS))
        assert self._daemon.process.poll() is None, self._daemon.err.read_text()
        kind = self._draw.random()
        if kind < 0.02:
            self._kill()
        elif kind < 0.03:
            self._daemon.signal(signal.SIGHUP)
            self.done["reload"] += 1
        elif kind < 0.1:
            self._fetch(self._draw.choice(_PAGES))
        else:
            self._ask(self._command())

    def _kill(self) -> None:
        if kill_worker(self._job.directory):
            self.done["kill -9 of the worker"] += 1

    def _fetch(self, page: str) -> None:
        """A page whole, or of events that never end a line."""
        self.done[page] += 1
        with (
            contextlib.suppress(urllib.error.HTTPError),
            self._open(page) as answer,
        ):  # not ready is an answer too
            answer.readline() if page == "/events" else answer.read()

    def _open(self, page: str) -> Any:
        return urllib.request.urlopen(f"http://{self._http}{page}", timeout=_PATIENCE_SECONDS)

    def _ask(self, command: p.AnyCommand) -> None:
        self.done[type(command).__name__] += 1
        try:
            self._client.ask(command, _PATIENCE_SECONDS)
        except CommandError as error:
            assert error.code not in _LOST, error  # a refusal is an answer too

    def _command(self) -> p.AnyCommand:
        """Mostly questions; what lasts is rare, since it is kept for good."""
        draw = self._draw
        commands: tuple[p.AnyCommand, ...] = (
            p.Status(), p.Status(), p.Stats(), p.Get(), p.Hello(), p.Overlay(), p.Diff(), p.Events(), p.Events(since=1),
            p.History(last=5), p.Set(changes={"optim.lr": "1e-3"}, dry_run=True), p.Set(changes={"optim.lr": "cheap"}),
            p.Set(changes={"optim.rate": "1e-3"}), p.Inject(fault="overflow"), p.Checkpoint(), p.Pause(), p.Resume(), p.Resume(),
            p.Rollback(dry_run=True),
        )  # fmt: skip
        lasting: tuple[p.AnyCommand, ...] = (
            p.Set(changes={"optim.lr": str(draw.uniform(1e-4, 1e-2))}), p.Rollback(), p.Reset(), p.Confirm(),
        )  # fmt: skip
        return draw.choice(lasting if draw.random() < 0.01 else commands)


def _judge(looks: list[Look], revisions: int) -> None:
    """Files and threads as many as early on; memory by what is kept for good at most."""
    early, late = _quarter(looks, 1), _quarter(looks, 3)
    (memory, files, threads), (memory_now, files_now, threads_now) = early, late
    assert files_now <= files + 4, f"{files} open files early, {files_now} late"
    assert threads_now <= threads + 2, f"{threads} threads early, {threads_now} late"
    most = _MOST_GROWTH_MIB + _REVISION_MIB * revisions
    assert memory_now - memory <= most, (
        f"{memory:.1f} MiB early, {memory_now:.1f} late, at most {most:.1f} more"
    )


def _quarter(looks: list[Look], number: int) -> tuple[float, float, float]:
    """Medians of memory, files and threads in the quarter of that number, from 0."""
    quarter = looks[number * len(looks) // 4 : (number + 1) * len(looks) // 4] or looks[-1:]
    memory, files, threads = (statistics.median(column) for column in list(zip(*quarter, strict=True))[1:])
    return memory, files, threads


def _zombies(parent: int) -> list[int]:
    """Children that are gone and were not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, of = stat.read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(of) == parent:
                found.append(int(stat.parent.name))
    return found


def _summary(looks: list[Look]) -> str:
    half, last = looks[len(looks) // 2 :], looks[-1]
    slope = statistics.linear_regression([each.at for each in half], [each.memory for each in half]).slope
    files, threads = max(each.files for each in looks), max(each.threads for each in looks)
    return (
        f"{last.at:.0f} s; memory {_quarter(looks, 1)[0]:.1f} MiB in the second quarter, {last.memory:.1f} in the end,"
        f" {3600 * slope:+.2f} MiB an hour over the second half; {last.files} open files (most {files}),"
        f" {last.threads} threads (most {threads}), no dead child"
    )
