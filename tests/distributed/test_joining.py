"""A daemon for each process that somebody else has started: they find each other by what the environment says."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ampd.core import protocol as p
from tests.daemon.daemons import Daemon, until
from tests.distributed.nodes import PATIENCE_SECONDS, all_are_ready, all_end, free_port, rank_of, refusal_of
from tests.story.jobs import DigitsJob, metrics_of

WINDOWS = 1_000_000


@contextlib.contextmanager
def launched(world: int = 2) -> Iterator[list[DigitsJob]]:
    """The processes of a launcher, each as if on a machine of its own."""
    with TemporaryDirectory(prefix="ampd-") as home:
        jobs = [_process(Path(home), rank, world) for rank in range(world)]
        try:
            yield jobs
        finally:
            for job in jobs:
                job.clean()


def _process(home: Path, rank: int, world: int) -> DigitsJob:
    (home / str(rank)).mkdir()
    job = DigitsJob(home / str(rank), WINDOWS)
    job.directory = home / "run"
    job.write(distributed='processes = "env"', checkpoint="every_windows = 20")
    job.environment |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": "0",
        "OMP_NUM_THREADS": "1",
    }
    return job


def start(jobs: list[DigitsJob]) -> list[Daemon]:
    """What a launcher does."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for job in jobs:
        job.environment |= meeting
    return [job.start() for job in jobs]


@pytest.mark.timeout(300)
def test_processes_of_a_launcher_are_one_job() -> None:
    """Rank 0 leads; where a rank is lost all daemons fail, and go on when the launcher starts them again; where a daemon
    is lost its rank has all of them save and stop.
    """
    with launched() as jobs:
        daemons = leads, follows = start(jobs)
        all_are_ready(daemons)
        assert [daemon.status()["node"] for daemon in daemons] == ["rank-0", "rank-1"]
        assert follows.status()["leader"] == {"host": socket.gethostname(), "endpoint": ""}
        assert refusal_of(follows, p.Pause()).code == "NOT_LEADER"
        applied = leads.ask(p.Set(changes={"dtype": "bfloat16"})).window
        until("the change on rank 1", lambda: follows.said("config.applied"))
        assert follows.said("config.applied")[0]["window"] == applied
        assert 'ampd_worker_heartbeat_timestamp_seconds{rank="1"}' in metrics_of(follows)
        saved = leads.ask(p.Checkpoint()).window

        os.kill(rank_of(follows), signal.SIGKILL)
        assert all_end(daemons) == [1, 1]

        daemons = leads, follows = start(jobs)
        all_are_ready(daemons)
        assert leads.said("worker.became_ready")[0]["window"] >= saved
        follows.process.kill()
        assert leads.ends(PATIENCE_SECONDS) == 0
        ended = leads.said("worker.finished")[-1]
        assert (ended["result"], ended["window"]) == ("stopped", leads.said("checkpoint.saved")[-1]["window"])
