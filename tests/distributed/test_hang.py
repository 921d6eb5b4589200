"""A rank that stands still while the others wait for it: found, told, and the group starts again."""

from __future__ import annotations

import os
import signal

import pytest

from ampd.core import protocol as p
from tests.daemon.daemons import until
from tests.distributed.test_story import becomes_ready, ranks_of
from tests.story.jobs import digits_job


@pytest.mark.timeout(300)
def test_a_stopped_rank_is_found_and_its_group_starts_again() -> None:
    """Rank 1 is stopped during a pause; the event says which process it is, and the job is paused again."""
    with digits_job(windows=100_000) as job:
        job.write(distributed="processes = 2", watchdog="least_seconds = 5\npaused_seconds = 5")
        daemon = job.start()
        becomes_ready(daemon)
        daemon.ask(p.Pause())
        stopped = ranks_of(daemon)[1]
        os.kill(stopped, signal.SIGSTOP)

        until("the hang was told", lambda: daemon.said("worker.hung"))
        hung = daemon.said("worker.hung")[0]
        assert hung["phase"] == "paused"
        assert f"process {stopped} is stopped" in hung["note"]
        becomes_ready(daemon, count=2)
        until("it is paused again", lambda: daemon.status()["state"] == "paused")
        assert daemon.status()["restarts"] == {"hung": 1}
        assert daemon.ask(p.Stop(save=False)).result["state"] == "stopped"
