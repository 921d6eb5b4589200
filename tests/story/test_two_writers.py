"""A daemon that is started while the worker of a killed one still saves: never two writers in one directory."""

from __future__ import annotations

import signal

import pytest

from ampd.failpoints import VARIABLE
from tests.daemon.daemons import is_worker_of
from tests.story.jobs import quick_job

SAVING_SECONDS = 2
PATIENCE_SECONDS = 120.0  # two starts of torch, on a machine that has much else to do


@pytest.mark.timeout(300)
def test_the_next_worker_waits_for_the_last_save_of_the_one_before() -> None:
    """It is started when the other is gone, and goes on from what that one saved."""
    with quick_job(windows=1_000_000) as job:
        job.write(checkpoint="every_windows = 100000")  # so the one save is that of the orphan
        job.environment[VARIABLE] = f"checkpoint.manifest=sleep:{SAVING_SECONDS}"
        killed = job.start()
        orphan = killed.runs(5, patience=PATIENCE_SECONDS)
        del job.environment[VARIABLE]

        killed.signal(signal.SIGKILL)
        killed.ends(PATIENCE_SECONDS)
        follower = job.start()

        follower.hears("worker.started", patience=PATIENCE_SECONDS)
        assert not is_worker_of(orphan, job.directory)
        ready = follower.hears("worker.became_ready", patience=PATIENCE_SECONDS)
        assert ready["window"] >= 5
