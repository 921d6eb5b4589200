"""The mission with two ranks under torchrun: changed, overflowed, counted, saved, stopped and resumed, bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest

from ampd.core import protocol as p
from tests.daemon.daemons import Daemon, until
from tests.story.jobs import DigitsJob, digits_job, metrics_of

MANY = 1_000_000  # never reached: on no machine may the job end before it is stopped
TWO = {
    "distributed": "processes = 2", "checkpoint": "every_windows = 20", "batch": "size = 8",
    "optim": 'lr = 3e-3\nwarmup_windows = 20\nschedule = "constant"',  # which does not depend on how many windows there are to come
}  # fmt: skip
FALLBACKS = 'ampd_fp32_fallbacks_total{cause="forward"}'


@pytest.mark.timeout(300)
def test_two_ranks_end_to_end() -> None:
    """Changed, overflowed, saved, stopped and resumed, a rank killed, another short of memory while gradients travel.

    A run that is given the journal ends alike, as if nothing had ever happened.
    """
    with digits_job(windows=MANY) as job:
        job.write(**TWO)
        daemon = job.start()
        becomes_ready(daemon)
        daemon.ask(p.Pause())
        assert daemon.ask(p.Set(changes={"dtype": "float16"})).revision == 2
        daemon.ask(p.Inject(fault="overflow", windows=2))
        daemon.ask(p.Resume())
        until("two fallbacks on the page", lambda: metrics_of(daemon)[FALLBACKS] == 2.0)
        assert metrics_of(daemon)["ampd_ranks_alive"] == 2.0
        daemon.ask(p.Pause())
        assert daemon.ask(p.Checkpoint()).result["bytes"] > 0
        stopped = daemon.ask(p.Stop())
        assert (stopped.result, daemon.ends(60)) == ({"state": "stopped", "saved": True}, 0)

        resumed = job.start()
        becomes_ready(resumed)
        os.kill(ranks_of(resumed)[1], signal.SIGKILL)
        becomes_ready(resumed, count=2)
        moves = [(event["to"], event["reason"]) for event in resumed.said("lifecycle.changed")]
        # Rank 0 may be gone by the time that one looks: its peer's death ends it.
        assert any(to == "recovering" and reason.endswith("1 lost") for to, reason in moves)
        assert resumed.status()["restarts"] == {"rank_lost": 1}
        resumed.ask(p.Inject(fault="oom-backward", rank=1))
        until("the group began again in parts", lambda: resumed.said("window.divided"))
        becomes_ready(resumed, count=3)
        divided = resumed.said("window.divided")[-1]["window"]
        until("windows after that one", lambda: resumed.status()["window"] > divided + 5)
        windows = resumed.ask(p.Stop()).window
        assert resumed.ends(120) == 0
        assert_as_if_undisturbed(job, windows)


def assert_as_if_undisturbed(job: DigitsJob, windows: int) -> None:
    """The loss log is that of two ranks who are given the journal and left alone."""
    with digits_job(windows) as undisturbed:
        undisturbed.write(**TWO)
        undisturbed.directory.mkdir()
        shutil.copy(job.directory / "journal.jsonl", undisturbed.directory)
        assert undisturbed.start().ends(120) == 0
        assert undisturbed.losses == job.losses
        assert len(job.losses.splitlines()) == windows


def becomes_ready(daemon: Daemon, count: int = 1) -> None:
    """Wait for three processes to have loaded torch, which on a busy machine takes longer than anything else."""
    deadline = time.monotonic() + 120
    while len(daemon.said("worker.became_ready")) < count:
        assert time.monotonic() < deadline, daemon.err.read_text()
        time.sleep(0.02)


def ranks_of(daemon: Daemon) -> dict[int, int]:
    """The pids of the ranks, as they were last told."""
    return {event["rank"]: event["pid"] for event in daemon.said("worker.spoke")}
