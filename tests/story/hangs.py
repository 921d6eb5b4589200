"""Jobs that hang, and what must come of it: found in time, stacks saved, and the run that goes on is exact."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime

from tests.daemon.daemons import Daemon
from tests.story.jobs import DigitsJob

HANGING_WORKER = f"{shlex.quote(sys.executable)} -m tests.story.hanging_worker"
BUDGET_SECONDS = 2.0
LATE_SECONDS = 1.0
"""A hang is told at most so long after its budget is over."""


def write(job: DigitsJob) -> None:
    """A job file with short budgets for windows and long ones for what is slow by nature."""
    job.write(
        checkpoint="every_windows = 20",
        evaluate="every_windows = 40",
        restart="max_restarts = 1000\nbackoff_seconds = 0.01",
        watchdog=f"least_seconds = {BUDGET_SECONDS}\nwindow_seconds = {BUDGET_SECONDS}",
    )


def start(job: DigitsJob, *, hang: Sequence[str] = (), slow: Sequence[str] = ()) -> Daemon:
    """`ampd start` with a worker that hangs, or is slow, where it is told."""
    words = [f"--hang {word}" for word in hang] + [f"--slow {word}" for word in slow]
    return job.start(worker=" ".join([HANGING_WORKER, *words]))


def lateness(job: DigitsJob, daemon: Daemon) -> list[float]:
    """For each hang, the seconds from its budget's end to the event, by the worker's own note of its beginning."""
    told = daemon.said("worker.hung")
    begun = sorted(float(note.read_text()) for note in job.directory.glob("hung-*"))
    assert len(told) == len(begun), f"{len(begun)} hangs, {len(told)} told: {told}"
    return [
        datetime.fromisoformat(event["time"]).timestamp() - at - event["budget_seconds"]
        for event, at in zip(told, begun, strict=True)
    ]


def check_exact(job: DigitsJob, whole: DigitsJob) -> None:
    """The loss log is that of a run of the same job that never hung."""
    write(whole)
    if not whole.directory.exists():
        whole.directory.mkdir()
        shutil.copy(job.directory / "journal.jsonl", whole.directory)
        assert whole.start().ends(120) == 0
    assert whole.losses == job.losses
