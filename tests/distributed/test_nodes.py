"""Two nodes with a daemon each: one job, changed in one place, that a lost rank on either does not alter."""

from __future__ import annotations

import os
import shutil
import signal
import socket

import pytest

from ampd.core import protocol as p
from ampd.errors import ExitCode
from tests.daemon.daemons import Daemon, until
from tests.distributed.machines import machines, starter_on
from tests.distributed.nodes import PATIENCE_SECONDS, all_are_ready, all_end, nodes, rank_of, refusal_of
from tests.distributed.test_story import becomes_ready
from tests.story.jobs import digits_job, metrics_of

WINDOWS = 1_000_000  # never reached: on no machine may it end before it is stopped
TWO_RANKS = {"distributed": "processes = 2", "checkpoint": "every_windows = 20"}
SET = p.Set(changes={"dtype": "bfloat16"})


@pytest.mark.timeout(400)
def test_two_nodes_end_to_end() -> None:
    """Changed at one window on both, refused where it is not led, a rank killed, stopped from the second node:
    the loss log is that of two ranks on one node that nobody disturbed.
    """
    with nodes(windows=WINDOWS) as job, digits_job(windows=WINDOWS) as undisturbed:
        daemons = leads, follows = job.start()
        all_are_ready(daemons)
        assert follows.status()["leader"] == {"host": socket.gethostname(), "endpoint": ""}
        refused = refusal_of(follows, SET)
        assert (refused.code, refused.exit_code) == ("NOT_LEADER", ExitCode.REJECTED)

        applied = leads.ask(SET).window
        until("the change on the other node", lambda: follows.said("config.applied"))
        assert [change["window"] for change in follows.said("config.applied")] == [applied]
        assert_pages_add_up(leads, follows)

        os.kill(rank_of(follows), signal.SIGKILL)
        all_are_ready(daemons, count=2)
        until(
            "windows after the restart",
            lambda: leads.status()["window"] > applied + 1,
            patience=PATIENCE_SECONDS,
        )
        assert [daemon.status()["restarts"] for daemon in daemons] == [{"rank_lost": 1}] * 2
        follows.signal(signal.SIGTERM)
        assert all_end(daemons) == [0, 0]
        assert leads.said("worker.finished")[-1]["result"] == "stopped"
        assert leads.said("checkpoint.saved")[-1]["window"] == leads.said("worker.finished")[-1]["window"]

        undisturbed.write(**TWO_RANKS)
        undisturbed.directory.mkdir()
        shutil.copy(job.directory / "journal.jsonl", undisturbed.directory)
        whole = undisturbed.start()
        becomes_ready(whole)
        stopped = leads.said("worker.finished")[-1]["window"]
        until("as many windows", lambda: whole.status()["window"] >= stopped, patience=PATIENCE_SECONDS)
        whole.ask(p.Stop(save=False))
        assert whole.ends(120) == 0
        assert job.losses.count("\n") == stopped
        whole_rows, rows = undisturbed.losses.splitlines(), job.losses.splitlines()
        assert whole_rows[: len(rows)] == rows


def assert_pages_add_up(leads: Daemon, follows: Daemon) -> None:
    """Each rank is on the page of its node, and windows are on one page only."""
    until("both ranks have figures", lambda: all(metrics_of(d)["ampd_ranks_alive"] for d in (leads, follows)))
    pages = [metrics_of(daemon) for daemon in (leads, follows)]
    heartbeat = 'ampd_worker_heartbeat_timestamp_seconds{{rank="{}"}}'
    assert [[heartbeat.format(rank) in page for rank in (0, 1)] for page in pages] == [
        [True, False],
        [False, True],
    ]
    assert ["ampd_windows_total" in page for page in pages] == [True, False]


@pytest.mark.timeout(300)
def test_machines_find_out_who_leads() -> None:
    """Two host names on two ends of a cable: whoever has the rendezvous' address leads, and rank 0 is there although
    torchrun, which orders nodes by address, has the other one first.
    """
    with machines() as (gpu1, gpu2), nodes(windows=WINDOWS) as job:
        first, second = job.jobs
        first.starter, second.starter = starter_on(gpu1), starter_on(gpu2)
        job.write(distributed=f'nodes = 2\nrendezvous = "{gpu2.address}:29400"')
        daemons = follows, leads = job.start()
        all_are_ready(daemons)

        assert follows.status()["leader"] == {"host": "gpu2", "endpoint": ""}
        assert [daemon.status()["node"] for daemon in daemons] == ["gpu1", "gpu2"]
        assert [daemon.said("node.joined")[0]["first_rank"] for daemon in daemons] == [1, 0]
        assert leads.ask(p.Stop()).result["saved"]
        assert all_end(daemons) == [0, 0]
