"""kill -9 of worker, supervisor or both at random moments, with live changes under way, in every precision.

However often a run is killed, its whole loss log and its last checkpoint are those, byte for byte, of a run that was never
killed and had the same changes at the same windows: that one's journal is what the killed one left.

A case is one job with many kills, since the run that it is compared with costs the same however many there were. Before
each kill it waits for something that is drawn (nothing at all, a worker's start, its being ready, a few windows, a
checkpoint) and then a random while. Random times alone would strike only where most time is spent, which is the import of
torch, and on a slow machine nothing else; so they strike in starts, loads, windows, saves and writes of the journal on any.
A few kills strike processes as an operator starts them; where there are many, daemons and workers are forked from one that
has torch loaded (`tests.story.forked`), and a kill costs a fraction of a second instead of several.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ampd.core import protocol as p
from ampd.engine import checkpoint
from ampd.job_directory import Holders
from tests.campaigns.operator import Operator
from tests.daemon.daemons import Starter, is_worker_of
from tests.story.forked import Zygote
from tests.story.jobs import QuickJob, quick_job

NAME = "kills"
KILLS = 4
MANY_KILLS = 5
_DTYPES = ("float32", "bfloat16", "float16")
_VICTIMS = (("worker",), ("worker",), ("supervisor",), ("worker", "supervisor"), ("supervisor", "worker"))
_MOMENTS = ("at once", "worker.started", "worker.became_ready", "windows", "checkpoint.saved")
_MEAN_SECONDS = 0.15
_MANY = 1_000_000
_PATIENCE_SECONDS = 120.0  # a start of torch on a machine that has much else to do
_REPEAT_SECONDS = 1800.0


def case(seed: int, kills: int = KILLS) -> None:
    """Kill so many times, stop, and compare with a run that was never killed; says what was struck."""
    draw = random.Random(seed)
    dtype, begin = draw.choice(_DTYPES), time.monotonic()
    with _starter(kills) as starter, quick_job(_MANY, starter) as job, ThreadPoolExecutor(1) as pool:
        write(job, dtype)
        operator, torment = Operator(job.home, random.Random(seed + 1)), Torment(job, draw)
        changing = pool.submit(operator.work)
        try:
            while torment.kills.total() < kills:
                torment.strike()
        finally:
            operator.leave.set()
        changing.result()
        stopped = torment.end(operator)
        seconds = time.monotonic() - begin
        compare(job, dtype, stopped, starter)
        print(f"{NAME}: {_summary(job, torment, operator)} from {dtype} on, {seconds:.0f} s, exact")


class Torment:
    """A job and its present daemon, which must end by nothing but a kill."""

    def __init__(self, job: QuickJob, draw: random.Random) -> None:
        self.kills: Counter[str] = Counter()
        self.moments: Counter[str] = Counter()
        self._job, self._draw = job, draw
        self._daemon = job.start()
        self._seen: Counter[str] = Counter()
        self._reached = 0

    def strike(self) -> None:
        """Wait for a moment that is drawn, and kill; counted where there was somebody to be killed."""
        moment = self._draw.choice(_MOMENTS)
        self._await(moment)
        time.sleep(self._draw.expovariate(1 / _MEAN_SECONDS))  # the point: the moment is random
        self._seen = Counter(event["event"] for event in self._daemon.events)
        struck = [victim for victim in self._draw.choice(_VICTIMS) if self._kill(victim)]
        if struck:
            self.kills[" and ".join(sorted(struck))] += 1
            self.moments[moment] += 1
        if self._daemon.process.poll() is not None:
            self._daemon, self._seen = self._job.start(), Counter()

    def end(self, operator: Operator) -> int:
        """Stop it in order; the window at which it stopped."""
        self._await("windows")
        operator.check(self._daemon.ask(p.History()))
        stopped = self._daemon.ask(p.Stop())
        assert self._daemon.ends(_PATIENCE_SECONDS) == 0, self._daemon.err.read_text()
        assert stopped.result == {"state": "stopped", "saved": True}, stopped
        return stopped.window

    def _await(self, moment: str) -> None:
        match moment:
            case "at once":
                return
            case "windows":
                if len(self._daemon.said("worker.became_ready")) <= self._seen["worker.became_ready"]:
                    self._await("worker.became_ready")
                self._daemon.runs(self._reached + 5, patience=_PATIENCE_SECONDS)
                self._reached = self._daemon.status()["window"]
            case _:
                self._daemon.hears(moment, self._seen[moment] + 1, patience=_PATIENCE_SECONDS)

    def _kill(self, victim: str) -> bool:
        """Whether there was somebody to be killed."""
        if victim == "supervisor":
            self._daemon.process.kill()
            self._daemon.process.wait()
            return True
        return kill_worker(self._job.directory)


def kill_worker(directory: Path) -> bool:
    """Kill the worker that was started last, where it is alive."""
    try:
        worker = msgspec.json.decode((directory / "lock").read_bytes(), type=Holders).worker
    except (FileNotFoundError, msgspec.DecodeError):  # not yet, or just now
        return False
    if worker is None or not is_worker_of(worker, directory):
        return False
    os.kill(worker, signal.SIGKILL)
    return True


def write(job: QuickJob, dtype: str, **sections: str) -> None:
    """A job file for many kills, whose learning rate does not hang on how long the job is to be."""
    job.write(
        job=f'name = "toy"\ndirectory = "{job.directory}"\nwindows = {job.windows}',
        amp=f'dtype = "{dtype}"\ninit_scale = 1024.0\ngrowth_interval = 40',
        optim='lr = 3e-3\nschedule = "constant"', checkpoint="every_windows = 10",
        restart="max_restarts = 1000000\nbackoff_seconds = 0.0", **sections,
    )  # fmt: skip


@contextmanager
def _starter(kills: int) -> Iterator[Starter | None]:
    """Where daemons come from: a command line, or a process to fork from."""
    if kills < MANY_KILLS:
        yield None
        return
    with contextlib.closing(Zygote()) as zygote:
        yield zygote.start


def compare(job: QuickJob, dtype: str, windows: int, starter: Starter | None = None) -> None:
    """Run the journal once more from the first window, undisturbed: everything is the same."""
    with quick_job(windows, starter) as whole:
        write(whole, dtype)
        whole.directory.mkdir()
        shutil.copy(job.directory / "journal.jsonl", whole.directory)
        last = whole.start()
        assert last.ends(_REPEAT_SECONDS) == 0, last.err.read_text()
        assert len(job.losses.splitlines()) == windows
        assert whole.losses == job.losses, "the loss logs differ"
        assert _last(whole) == _last(job), "the last checkpoints differ"


def _last(job: QuickJob) -> checkpoint.Manifest:
    """What the last checkpoint holds, with the SHA-256 of each file: weights, optimizer, generators, ledger, changes."""
    return checkpoint.verify(checkpoint.listed(job.directory / "checkpoints")[-1])


def _summary(job: QuickJob, torment: Torment, operator: Operator) -> str:
    rows = [json.loads(line) for line in job.losses.splitlines()]
    precisions = Counter(row["first"] for row in rows)
    replayed = sum(bool(row["replays"]) for row in rows)
    return (
        f"{torment.kills.total()} kills {dict(torment.kills)} after {dict(torment.moments)}; {len(rows)} windows"
        f" {dict(precisions)}, {replayed} of them replayed, {operator.asked.total()} commands, {len(operator.told)} answered;"
    )
