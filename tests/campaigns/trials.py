"""Changes on trial, bad and benign, with workers and daemons killed in the middle: each ends as it must, and once.

A bad one meets injected faults inside its windows and must be reverted within them; a benign one must be confirmed, with
the same guards. Whoever waits may lose the daemon, asks the next one under the same id, and is told of the same end. In
the end the whole run is repeated from its journal by a job that never was disturbed: the losses are the same, so the
ends of trials were repeated where they had been.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ampd.control.client import Client, new_request_id
from ampd.core import protocol as p
from ampd.errors import CommandError
from tests.daemon.daemons import PATIENCE_SECONDS, Daemon, until
from tests.story.jobs import DigitsJob, digits_job

NAME = "trials"
TRIALS = 10
_WINDOWS = 40
_GUARDS = ("nonfinite==0", "fallback_rate<0.2", "loss<100x")
_LOST = {"NOT_RUNNING", "TIMED_OUT", "UNREACHABLE"}
_VICTIMS = ("", "", "killed worker", "killed daemon")
_MANY = 1_000_000


def case(seed: int, count: int = TRIALS, *, kills: bool = True) -> dict[str, int]:
    """Try so many changes on one job; returns how many there were of each kind."""
    draw, seen = random.Random(seed), {"bad": 0, "benign": 0, "killed worker": 0, "killed daemon": 0}
    with digits_job(windows=_MANY) as job, ThreadPoolExecutor(1) as pool:
        _write(job, _MANY)
        run = _Trials(job, draw, pool)
        for _ in range(count):
            for kind in run.one(_VICTIMS if kills else ("",)):
                seen[kind] += 1
        stopped = run.daemon.ask(p.Stop())
        assert run.daemon.ends(PATIENCE_SECONDS) == 0, run.daemon.err.read_text()
        _repeat(job, stopped.window)
    return seen


class _Trials:
    """One job, its present daemon, and somebody who waits for the end of each trial."""

    def __init__(self, job: DigitsJob, draw: random.Random, pool: ThreadPoolExecutor) -> None:
        self.daemon: Daemon = job.start()
        self._job, self._draw, self._pool = job, draw, pool
        self._endpoint = f"ipc://{job.home / 'rt' / 'toy' / 'control.sock'}"
        self._lr = 1e-3
        self._next = 10  # enough windows to compare with, and behind what a resumed run repeats

    def one(self, victims: Sequence[str]) -> list[str]:
        """Make a change on trial and follow it to its end."""
        self.daemon.hears("worker.became_ready")
        self.daemon.runs(self._next)
        is_bad = self._draw.random() < 0.5
        victim = self._draw.choice(victims)
        self.daemon.ask(p.Pause())
        key, value = self._change()
        before = self._value(key)
        answered, request_id = self._ask(key, value)
        until("a change on trial", lambda: self.daemon.status()["trial"])
        if is_bad:
            self._spoil(key)
        self.daemon.ask(p.Resume())
        if victim:
            self._kill(victim)
        done = self._answer(answered, request_id, key, value)
        self._check(done, "reverted" if is_bad else "confirmed", key, before if is_bad else value)
        return ["bad" if is_bad else "benign", *([victim] if victim else [])]

    def _change(self) -> tuple[str, Any]:
        self._lr *= self._draw.uniform(0.9, 1.1)
        if self._value("amp.dtype") != "float16" and self._draw.random() < 0.5:
            return "amp.dtype", "float16"
        return "optim.lr", self._lr

    def _ask(self, key: str, value: Any) -> tuple[Future[p.Done], str]:
        request_id = new_request_id()
        return self._pool.submit(self._try, request_id, key, value), request_id

    def _try(self, request_id: str, key: str, value: Any) -> p.Done:
        command = p.Set(changes={key: str(value)}, trial=_WINDOWS, guards=_GUARDS)
        return Client(self._endpoint).ask(command, 4 * PATIENCE_SECONDS, request_id=request_id)

    def _answer(self, answered: Future[p.Done], request_id: str, key: str, value: Any) -> p.Done:
        """The final answer, from this daemon or from a later one."""
        try:
            return answered.result()
        except CommandError as error:
            assert error.code in _LOST, error
            self.daemon.hears("worker.started")
            return self._try(request_id, key, value)

    def _spoil(self, key: str) -> None:
        """Make windows of the trial go wrong: some that no precision mends, or many that fall back."""
        if key == "amp.dtype" and self._draw.random() < 0.5:
            self.daemon.ask(p.Inject(fault="overflow", windows=_WINDOWS // 2))
        else:
            self.daemon.ask(p.Inject(fault="nan-loss", windows=self._draw.randint(1, 3)))

    def _kill(self, victim: str) -> None:
        time.sleep(self._draw.random() * 0.4)  # the point of the campaign: the moment is random
        if victim == "killed worker":
            ready = len(self.daemon.said("worker.became_ready"))
            os.kill(int(self.daemon.said("worker.started")[-1]["pid"]), signal.SIGKILL)
            self.daemon.hears(
                "worker.became_ready", ready + 1
            )  # what comes next may be the stop, which needs one
        else:
            self.daemon.process.kill()
            self.daemon.process.wait()
            self.daemon = self._job.start()

    def _value(self, key: str) -> Any:
        return self.daemon.ask(p.Get(keys=(key,))).result["values"][key]

    def _check(self, done: p.Done, outcome: str, key: str, value: Any) -> None:
        """What was answered, what the history says, and what holds."""
        assert done.result["trial"]["outcome"] == outcome, done
        self.daemon.hears("worker.became_ready")
        self._next = done.window + 10
        self.daemon.runs(self._next)
        assert self._value(key) == value
        revisions = self.daemon.ask(p.History()).result["revisions"]
        tried = [revision for revision in revisions if revision["trial"]][-1]
        assert (tried["trial"]["outcome"], tried["trial"]["window"]) == (outcome, done.window), tried
        assert done.window <= tried["window"] + _WINDOWS, f"decided late: {tried}"
        assert [r["author"] for r in revisions if r["reverts"] == tried["revision"]] == ["policy"] * (
            outcome == "reverted"
        )
        assert self.daemon.status()["trial"] is None


def _write(job: DigitsJob, windows: int) -> None:
    job.write(
        job=f'name = "toy"\ndirectory = "{job.directory}"\nwindows = {windows}',
        optim='lr = 1e-3\nschedule = "constant"', checkpoint="every_windows = 25",
        restart="backoff_seconds = 0.01\nmax_restarts = 100\nsave_budget_seconds = 10",
    )  # fmt: skip


def _repeat(job: DigitsJob, windows: int) -> None:
    """Run the journal once more from the first window, undisturbed."""
    with digits_job(windows=windows) as whole:
        _write(whole, windows)
        whole.directory.mkdir()
        shutil.copy(job.directory / "journal.jsonl", whole.directory)
        last = whole.start()
        assert last.ends(4 * PATIENCE_SECONDS) == 0, last.err.read_text()
        assert whole.losses == job.losses, "the repeated run differs"
