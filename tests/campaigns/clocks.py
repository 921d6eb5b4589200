"""A wall clock that steps by hours and years, ahead and back, under a whole job: nobody notices.

Under way meanwhile: windows and saves, changes and their journal, a trial, a pause, a worker that is stopped and must be
found by its budget, and a stop that saves. No clock step kills a worker or ends a wait, what counts seconds only grows and
by no more than has passed, events keep their order, and the run is, byte for byte, that of an undisturbed job.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from itertools import pairwise

from ampd.core import protocol as p
from tests.campaigns.kills import compare, write
from tests.daemon.daemons import Daemon, until
from tests.story.jobs import QuickJob, metrics_of, quick_job
from tests.story.wall_clock import WallClock

NAME = "clocks"
STEPS = 4
BUDGET_SECONDS = 5.0
LATE_SECONDS = 1.0
HOUR, YEAR = 3600, 31_536_000
_AHEAD = (-YEAR, -25 * HOUR, -2 * HOUR, -1, 0, 1, 2 * HOUR, 25 * HOUR, YEAR)
_MANY = 1_000_000
_PATIENCE_SECONDS = 120.0
_LAG_SECONDS = 60.0
"""A page may be that much older on a busy machine; a step that went into a counter would be an hour."""


def case(seed: int, steps: int = STEPS, late_seconds: float = LATE_SECONDS) -> None:
    """Step so often; needs a C compiler, and is left out where there is none."""
    if shutil.which("cc") is None:
        print(f"{NAME}: left out: there is no C compiler")
        return
    draw = random.Random(seed)
    with quick_job(_MANY) as job:
        _write(job)
        clock = WallClock(job.home)
        job.environment |= clock.environment
        life = Life(job.start(), clock, draw)
        for _ in range(steps):
            life.step()
            life.act()
        life.hang(late_seconds)
        life.step()
        stopped = life.stop()
        compare(job, "bfloat16", stopped.window)
    print(
        f"{NAME}: {steps} steps and a hang, nobody killed but who hung, exact after {stopped.window} windows"
    )


class Life:
    """A daemon whose wall clock steps, and what it says of time."""

    def __init__(self, daemon: Daemon, clock: WallClock, draw: random.Random) -> None:
        self._daemon, self._clock, self._draw = daemon, clock, draw
        self._lr = 1e-3
        self._daemon.runs(patience=_PATIENCE_SECONDS)
        self._read_at, self._seconds = time.monotonic(), self._observed()

    def step(self) -> None:
        """Set the clock to anything; the job gets on, and time goes on as before."""
        self._clock.step(self._draw.choice(_AHEAD) + self._draw.randint(-5, 5))
        self._daemon.runs(self._daemon.status()["window"] + 3, patience=_PATIENCE_SECONDS)
        before, self._seconds = self._seconds, self._observed()
        begun, self._read_at = self._read_at, time.monotonic()
        passed = self._read_at - begun
        for name, seconds in self._seconds.items():
            grown = seconds - before.get(name, 0.0)
            assert 0 <= grown <= passed + _LAG_SECONDS, f"{name} grew by {grown:.1f} in {passed:.1f} s"

    def act(self) -> None:
        """Something that takes time, with steps in the middle of it."""
        match self._draw.choice(("change", "trial", "pause", "save")):
            case "change":
                self._daemon.ask(p.Set(changes={"optim.lr": self._next_lr()}))
            case "save":
                self._daemon.ask(p.Checkpoint())
            case "pause":
                self._daemon.ask(p.Pause())
                self._clock.step(self._draw.choice(_AHEAD))
                self._daemon.ask(p.Resume())
            case "trial":
                change = p.Set(
                    changes={"optim.lr": self._next_lr()}, trial=30, guards=("nonfinite==0",), wait=False
                )
                self._daemon.ask(change)
                self._clock.step(self._draw.choice(_AHEAD))
                until(
                    "the end of the trial", lambda: self._outcome() != "running", patience=_PATIENCE_SECONDS
                )
                assert self._outcome() == "confirmed", self._daemon.ask(p.History(last=1)).result

    def hang(self, late_seconds: float) -> None:
        """Stop the worker: it is found when its budget is over, not before and not much later.

        A few windows after the last change, since the first one under it may take as long as building kernels does.
        """
        self._daemon.runs(self._daemon.status()["window"] + 3, patience=_PATIENCE_SECONDS)
        os.kill(int(self._daemon.said("worker.started")[-1]["pid"]), signal.SIGSTOP)
        self._clock.step(self._draw.choice(_AHEAD))
        hung = self._daemon.hears("worker.hung", patience=_PATIENCE_SECONDS)
        assert 0 <= hung["seconds"] - hung["budget_seconds"] <= late_seconds, hung
        self._daemon.hears("worker.became_ready", 2, patience=_PATIENCE_SECONDS)

    def stop(self) -> p.Done:
        """Save and end; nobody was taken for dead but the one that hung, and no event came out of order."""
        events = self._daemon.ask(p.Events(since=0, most=1000)).result["events"]
        assert all(after["seq"] == before["seq"] + 1 for before, after in pairwise(events))
        stopped = self._daemon.ask(p.Stop())
        assert self._daemon.ends(_PATIENCE_SECONDS) == 0, self._daemon.err.read_text()
        assert stopped.result == {"state": "stopped", "saved": True}, stopped
        assert len(self._daemon.said("worker.hung")) == 1
        assert len(self._daemon.said("worker.started")) == 2, self._daemon.err.read_text()
        return stopped

    def _outcome(self) -> str:
        """Of the last change, which was on trial."""
        return str(self._daemon.ask(p.History(last=1)).result["revisions"][-1]["trial"]["outcome"])

    def _next_lr(self) -> str:
        self._lr *= self._draw.uniform(0.9, 1.1)
        return str(self._lr)

    def _observed(self) -> dict[str, float]:
        """Every counter of seconds, and uptime."""
        counted = {
            name: value for name, value in metrics_of(self._daemon).items() if "_seconds_total" in name
        }
        return counted | {"uptime": self._daemon.status()["uptime_seconds"]}


def _write(job: QuickJob) -> None:
    write(job, "bfloat16", watchdog=f"least_seconds = {BUDGET_SECONDS}\nwindow_seconds = {BUDGET_SECONDS}")
